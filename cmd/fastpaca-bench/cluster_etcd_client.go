package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// What is used of etcd's API: two methods and the numbers of their fields.
const (
	etcdPut    = "/etcdserverpb.KV/Put"
	etcdStatus = "/etcdserverpb.Maintenance/Status"

	putKey, putValue     = 1, 2
	statusHeader         = 1
	statusLeader         = 4
	statusHeaderMemberID = 2
)

// clientsPerConn is how many closed-loop clients share a connection, as etcd's
// own benchmark has it for many clients.
const clientsPerConn = 64

// rawCodec passes messages through that are encoded already: the official
// client would cost more on the machine that it shares with the servers.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error {
	out := v.(*[]byte)
	*out = append((*out)[:0], data...)
	return nil
}

func dialEtcd(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
}

// etcdConns are the connections that clients of one member share.
type etcdConns struct {
	address string

	mu      sync.Mutex // guards the below
	open    []*grpc.ClientConn
	clients int
}

func newEtcdConns(address string) *etcdConns { return &etcdConns{address: address} }

// writer returns a client. Clients of the previous measurement are gone when
// the next begin, so the count of connections follows that of clients.
func (c *etcdConns) writer() (writer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.clients / clientsPerConn
	if at == len(c.open) {
		conn, err := dialEtcd(c.address)
		if err != nil {
			return nil, err
		}
		c.open = append(c.open, conn)
	}
	c.clients++
	return &etcdWriter{conns: c, conn: c.open[at]}, nil
}

func (c *etcdConns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}

// etcdKeys numbers keys over all clients, so that no put replaces another.
var etcdKeys atomic.Uint64

// etcdWriter is one closed-loop client.
type etcdWriter struct {
	conns    *etcdConns
	conn     *grpc.ClientConn
	key      []byte
	value    []byte
	request  []byte
	response []byte
}

func (w *etcdWriter) close() {
	w.conns.mu.Lock()
	defer w.conns.mu.Unlock()
	w.conns.clients--
}

// write puts the JSON of the message that the other side appends under a key
// that nobody has used.
func (w *etcdWriter) write(ctx context.Context, conversation string, text []byte) error {
	w.key = append(append(w.key[:0], conversation...), '/')
	w.key = strconv.AppendUint(w.key, etcdKeys.Add(1), 10)
	w.value = appendMessage(w.value[:0], text)
	w.request = protowire.AppendTag(w.request[:0], putKey, protowire.BytesType)
	w.request = protowire.AppendBytes(w.request, w.key)
	w.request = protowire.AppendTag(w.request, putValue, protowire.BytesType)
	w.request = protowire.AppendBytes(w.request, w.value)
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	if err := w.conn.Invoke(ctx, etcdPut, &w.request, &w.response); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// etcdLeads asks a member whether it leads.
func etcdLeads(ctx context.Context, address string) (bool, error) {
	conn, err := dialEtcd(address)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	var request, response []byte
	if err := conn.Invoke(ctx, etcdStatus, &request, &response); err != nil {
		return false, fmt.Errorf("status: %w", err)
	}
	return leadsByStatus(response)
}

// leadsByStatus reads the answer to a status request: whether the member that
// answered is the leader that it names.
func leadsByStatus(response []byte) (bool, error) {
	var member, leader uint64
	err := eachField(response, func(number protowire.Number, varint uint64, bytes []byte) error {
		switch number {
		case statusHeader:
			return eachField(bytes, func(number protowire.Number, varint uint64, _ []byte) error {
				if number == statusHeaderMemberID {
					member = varint
				}
				return nil
			})
		case statusLeader:
			leader = varint
		}
		return nil
	})
	return err == nil && leader != 0 && leader == member, err
}

var errMalformed = errors.New("malformed message")

// eachField calls f with the fields of a protobuf message.
func eachField(message []byte, f func(number protowire.Number, varint uint64, bytes []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errMalformed
		}
		message = message[n:]
		var (
			varint uint64
			bytes  []byte
		)
		switch kind {
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return errMalformed
		}
		message = message[n:]
		if err := f(number, varint, bytes); err != nil {
			return err
		}
	}
	return nil
}
