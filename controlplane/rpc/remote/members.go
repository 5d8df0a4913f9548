package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// members is where the members of the control plane are and which one to ask:
// the leader, as far as is known. All calls of a client share it, so that what
// one learns serves the others.
type members struct {
	dial func(string) (Conn, error)

	mu        sync.Mutex // guards what follows
	addresses []string
	current   string // to be asked
	conns     map[string]Conn
	closed    bool
}

func newMembers(addresses []string, dial func(string) (Conn, error)) *members {
	return &members{dial: dial, addresses: slices.Clone(addresses), current: addresses[0], conns: make(map[string]Conn)}
}

// member is a member to be asked.
type member struct {
	address string
	conn    Conn
}

// target returns the member to ask. The connection stays that of members.
func (m *members) target() (member, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return member{}, rpc.ErrClosed
	}
	conn := m.conns[m.current]
	if conn == nil {
		var err error
		if conn, err = m.dial(m.current); err != nil {
			return member{address: m.current}, err
		}
		m.conns[m.current] = conn
	}
	return member{address: m.current, conn: conn}, nil
}

// failed takes note of a member that did not answer as the leader does. Who is
// asked next is the leader it knows, else the next in the list. A connection
// that is broken is dropped: a new one tries at once, whatever backoff the old
// one is in.
func (m *members) failed(who member, f failure) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if f.broken && who.conn != nil && m.conns[who.address] == who.conn {
		delete(m.conns, who.address)
		err = who.conn.Close()
	}
	if m.current != who.address {
		// Another call has moved on already.
		return err
	}
	i := slices.Index(m.addresses, who.address)
	switch {
	case f.hint != "" && f.hint != who.address && m.add(f.hint):
		m.current = f.hint
	default:
		m.current = m.addresses[(i+1)%len(m.addresses)]
	}
	return err
}

// add makes an address known. It returns false when there are too many.
func (m *members) add(address string) bool {
	if slices.Contains(m.addresses, address) {
		return true
	}
	if len(m.addresses) >= maxMembers || len(address) > maxText {
		return false
	}
	m.addresses = append(m.addresses, address)
	return true
}

// count is how many members are known.
func (m *members) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.addresses)
}

func (m *members) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var errs []error
	for address, conn := range m.conns {
		errs = append(errs, conn.Close())
		delete(m.conns, address)
	}
	return errors.Join(errs...)
}

// rounds paces the attempts of one caller: as many as there are members without
// a pause, then one that doubles from min to max. Half of it is random, so that
// the clients of a control plane that returns do not come at the same moment.
type rounds struct {
	members  *members
	min, max time.Duration
	tries    int
	last     time.Duration
}

func (r *rounds) reset() { r.tries, r.last = 0, 0 }

// pause waits as long as the next attempt has to, or until ctx ends.
func (r *rounds) pause(ctx context.Context) {
	r.tries++
	if r.tries < r.members.count() {
		return
	}
	r.tries = 0
	r.last = min(max(r.last*2, r.min), r.max)
	timer := time.NewTimer(r.last/2 + rand.N(r.last/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
