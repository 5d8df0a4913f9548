package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// rpcTransport is what hashicorp/raft may ask of a transport.
type rpcTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// implementations are held to the same semantics: raft's own in-memory
// transport is the reference.
var implementations = map[string]func(*testing.T) (from, to rpcTransport){
	"inmem": func(t *testing.T) (rpcTransport, rpcTransport) {
		addr, to := raft.NewInmemTransportWithTimeout("b", patience)
		_, from := raft.NewInmemTransportWithTimeout("a", patience)
		from.Connect(addr, to)
		return from, to
	},
	"mux": func(t *testing.T) (rpcTransport, rpcTransport) {
		_, a, b := pairOf(t, nil)
		return a.Group(3), b.Group(3)
	},
}

func conform(t *testing.T, test func(t *testing.T, from, to rpcTransport)) {
	t.Helper()
	for name, open := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := open(t)
			test(t, from, to)
			require.NoError(t, from.Close())
			require.NoError(t, to.Close())
		})
	}
}

// answerNext answers the next request and hands it to the test.
func answerNext(to rpcTransport, resp any, err error) <-chan raft.RPC {
	got := make(chan raft.RPC, 1)
	go func() {
		select {
		case rpc := <-to.Consumer():
			got <- rpc
			rpc.Respond(resp, err)
		case <-time.After(patience):
		}
	}()
	return got
}

func testHeader(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id)}
}

func TestConformanceRoundTrips(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 7, 9, 1, 2, 3, 456789, time.UTC)
	conf := configurationBytes()
	for name, tc := range map[string]struct {
		req, resp any
		stale     any // what out holds before the call
		call      func(rt rpcTransport, req, out any) error
	}{
		"append": {
			&raft.AppendEntriesRequest{RPCHeader: testHeader("a"), Term: 10, Leader: []byte("a"), PrevLogEntry: 100, PrevLogTerm: 4, LeaderCommitIndex: 90,
				Entries: []*raft.Log{
					{Index: 101, Term: 4, Type: raft.LogNoop, AppendedAt: date},
					{Index: 102, Term: 4, Type: raft.LogCommand, Data: []byte("command"), Extensions: []byte("ext")},
					{Index: 103, Term: 10, Type: raft.LogConfiguration, Data: conf},
				}},
			&raft.AppendEntriesResponse{RPCHeader: testHeader("b"), Term: 4, LastLog: 90, Success: true, NoRetryBackoff: true},
			&raft.AppendEntriesResponse{},
			func(rt rpcTransport, req, out any) error {
				return rt.AppendEntries("b", "b", req.(*raft.AppendEntriesRequest), out.(*raft.AppendEntriesResponse))
			},
		},
		"heartbeat": {
			&raft.AppendEntriesRequest{RPCHeader: testHeader("a"), Term: 10, Leader: []byte("a")},
			&raft.AppendEntriesResponse{RPCHeader: testHeader("b"), Term: 10, LastLog: 90, Success: true},
			&raft.AppendEntriesResponse{NoRetryBackoff: true},
			func(rt rpcTransport, req, out any) error {
				return rt.AppendEntries("b", "b", req.(*raft.AppendEntriesRequest), out.(*raft.AppendEntriesResponse))
			},
		},
		"vote": {
			&raft.RequestVoteRequest{RPCHeader: testHeader("a"), Term: 20, Candidate: []byte("a"), LastLogIndex: 100, LastLogTerm: 19, LeadershipTransfer: true},
			&raft.RequestVoteResponse{RPCHeader: testHeader("b"), Term: 100, Peers: []byte("peers"), Granted: true},
			&raft.RequestVoteResponse{},
			func(rt rpcTransport, req, out any) error {
				return rt.RequestVote("b", "b", req.(*raft.RequestVoteRequest), out.(*raft.RequestVoteResponse))
			},
		},
		"pre-vote": {
			&raft.RequestPreVoteRequest{RPCHeader: testHeader("a"), Term: 20, LastLogIndex: 100, LastLogTerm: 19},
			&raft.RequestPreVoteResponse{RPCHeader: testHeader("b"), Term: 100, Granted: true},
			&raft.RequestPreVoteResponse{},
			func(rt rpcTransport, req, out any) error {
				return rt.RequestPreVote("b", "b", req.(*raft.RequestPreVoteRequest), out.(*raft.RequestPreVoteResponse))
			},
		},
		"timeout now": {
			&raft.TimeoutNowRequest{RPCHeader: testHeader("a")},
			&raft.TimeoutNowResponse{RPCHeader: testHeader("b")},
			&raft.TimeoutNowResponse{},
			func(rt rpcTransport, req, out any) error {
				return rt.TimeoutNow("b", "b", req.(*raft.TimeoutNowRequest), out.(*raft.TimeoutNowResponse))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, func(t *testing.T, from, to rpcTransport) {
				got := answerNext(to, tc.resp, nil)
				out := reflect.New(reflect.TypeOf(tc.stale).Elem())
				out.Elem().Set(reflect.ValueOf(tc.stale).Elem())
				require.NoError(t, tc.call(from, tc.req, out.Interface()))
				rpc := receive(t, got, "request")
				require.Equal(t, tc.req, rpc.Command)
				require.Nil(t, rpc.Reader)
				require.Equal(t, tc.resp, out.Interface())
			})
		})
	}
}

func TestConformanceInstallSnapshot(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 10, snapshotChunkBytes, 3*snapshotChunkBytes + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			conform(t, func(t *testing.T, from, to rpcTransport) {
				data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
				req := &raft.InstallSnapshotRequest{
					RPCHeader: testHeader("a"), SnapshotVersion: 1, Term: 10, Leader: []byte("a"), LastLogIndex: 100, LastLogTerm: 9,
					Peers: []byte("peers"), Configuration: configurationBytes(), ConfigurationIndex: 55, Size: int64(size),
				}
				resp := &raft.InstallSnapshotResponse{RPCHeader: testHeader("b"), Term: 10, Success: true}
				read := make(chan []byte, 1)
				go func() {
					rpc := <-to.Consumer()
					var sink bytes.Buffer
					_, err := io.Copy(&sink, struct{ io.Reader }{rpc.Reader})
					read <- sink.Bytes()
					if err == nil {
						rpc.Respond(resp, nil)
					} else {
						rpc.Respond(nil, err)
					}
				}()
				var out raft.InstallSnapshotResponse
				require.NoError(t, from.InstallSnapshot("b", "b", req, &out, bytes.NewReader(data)))
				require.Equal(t, resp, &out)
				require.True(t, bytes.Equal(data, receive(t, read, "data")))
			})
		})
	}
}

func TestConformanceErrorsOfRaft(t *testing.T) {
	t.Parallel()
	conform(t, func(t *testing.T, from, to rpcTransport) {
		answerNext(to, nil, errors.New("unexpected command"))
		var out raft.RequestPreVoteResponse
		err := from.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{}, &out)
		// hashicorp/raft searches this text for a peer without pre-votes.
		require.ErrorContains(t, err, "unexpected command")

		answerNext(to, &raft.AppendEntriesResponse{Term: 3, Success: true}, errors.New("disk on fire"))
		err = from.AppendEntries("b", "b", appendRequest("a", 1, 1), new(raft.AppendEntriesResponse))
		require.ErrorContains(t, err, "disk on fire")
	})
}

func TestConformanceUnknownPeer(t *testing.T) {
	t.Parallel()
	conform(t, func(t *testing.T, from, _ rpcTransport) {
		require.Error(t, from.AppendEntries("c", "c", appendRequest("a", 1, 1), new(raft.AppendEntriesResponse)))
		require.Error(t, from.InstallSnapshot("c", "c", &raft.InstallSnapshotRequest{}, new(raft.InstallSnapshotResponse), strings.NewReader("")))
	})
}

func TestConformanceRequestsOfAGroupKeepTheirOrder(t *testing.T) {
	t.Parallel()
	conform(t, func(t *testing.T, from, to rpcTransport) {
		const calls = 200
		done := make(chan error, 1)
		go func() {
			for i := range uint64(calls) {
				req := appendRequest("a", 1, 10)
				req.Term = i + 1
				if err := from.AppendEntries("b", "b", req, new(raft.AppendEntriesResponse)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for i := range uint64(calls) {
			rpc := receive(t, to.Consumer(), "request")
			require.Equal(t, i+1, rpc.Command.(*raft.AppendEntriesRequest).Term)
			rpc.Respond(&raft.AppendEntriesResponse{Term: i + 1}, nil)
		}
		require.NoError(t, receive(t, done, "end of the calls"))
	})
}

func TestConformancePeersEncodeAsTheyAre(t *testing.T) {
	t.Parallel()
	conform(t, func(t *testing.T, from, to rpcTransport) {
		for _, addr := range []raft.ServerAddress{from.LocalAddr(), to.LocalAddr(), "", "another", to.LocalAddr()} {
			encoded := from.EncodePeer("id", addr)
			require.Equal(t, string(addr), string(encoded))
			require.Equal(t, addr, from.DecodePeer(encoded))
		}
	})
}
