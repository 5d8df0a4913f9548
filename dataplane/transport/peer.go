package transport

import (
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
)

// peer is another node.
type peer struct {
	mux   *Mux
	id    string
	addr  atomic.Pointer[string]
	links [streamLanes]*link
}

func (p *peer) address() string { return *p.addr.Load() }

// SetAddress tells where a node is reached. When the address changes,
// connections to the old one are closed. An empty address forgets the node:
// its connections end and calls to it fail with ErrUnknownPeer.
func (m *Mux) SetAddress(nodeID, address string) {
	if nodeID == m.conf.NodeID {
		return
	}
	if address == "" {
		m.forgetPeer(nodeID)
		return
	}
	p, err := m.peer(nodeID, true)
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			m.log.Error("address of a node is not taken", "peer", nodeID, "error", err)
		}
		return
	}
	if old := *p.addr.Swap(&address); old != "" && old != address {
		for _, l := range p.links {
			l.hangUp()
		}
	} else if old == "" {
		for _, l := range p.links {
			l.retry()
		}
	}
}

// link returns the lane to a node.
func (m *Mux) link(nodeID string, lane Lane) (*link, error) {
	if p := (*m.peers.Load())[nodeID]; p != nil {
		return p.links[lane], nil
	}
	return nil, ErrUnknownPeer
}

// peer returns a node, made if need be.
func (m *Mux) peer(nodeID string, create bool) (*peer, error) {
	if p := (*m.peers.Load())[nodeID]; p != nil {
		return p, nil
	}
	if len(nodeID) == 0 || len(nodeID) > maxNodeID {
		return nil, fmt.Errorf("%w: node id of %d bytes", ErrProtocol, len(nodeID))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	peers := *m.peers.Load()
	if p := peers[nodeID]; p != nil {
		return p, nil
	}
	if m.closed {
		return nil, ErrClosed
	}
	if len(peers) >= m.conf.Limits.Peers {
		return nil, fmt.Errorf("%w: more than %d nodes", ErrOverloaded, m.conf.Limits.Peers)
	}
	p := &peer{mux: m, id: nodeID}
	p.addr.Store(new(string))
	for lane := range p.links {
		p.links[lane] = newLink(p, Lane(lane))
	}
	peers = maps.Clone(peers)
	peers[nodeID] = p
	m.peers.Store(&peers)
	return p, nil
}

func (m *Mux) forgetPeer(nodeID string) {
	m.mu.Lock()
	peers := maps.Clone(*m.peers.Load())
	p := peers[nodeID]
	delete(peers, nodeID)
	m.peers.Store(&peers)
	m.mu.Unlock()
	if p != nil {
		for _, l := range p.links {
			l.close(ErrUnknownPeer)
		}
	}
}
