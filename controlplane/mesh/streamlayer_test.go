package mesh

import (
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type serverAddress string

// raftStreamLayer is the method set that hashicorp/raft's network transport
// asks for.
type raftStreamLayer interface {
	net.Listener
	Dial(address serverAddress, timeout time.Duration) (net.Conn, error)
}

var _ raftStreamLayer = (*StreamLayer[serverAddress])(nil)

func TestStreamLayer(t *testing.T) {
	t.Parallel()
	errUnknown := errors.New("not a member")
	member := func(id string) (*Listener, *Dialer) {
		conf := Config{Role: RoleControl, ID: id, Credentials: Credentials{Token: tokenA}, Logger: slog.New(slog.DiscardHandler)}
		return mustListen(t, conf), mustDialer(t, conf)
	}
	l1, d1 := member("c1")
	l2, d2 := member("c2")
	resolve := func(a serverAddress) (string, string, error) {
		if a == "c1" || a == "c9" {
			return string(a), l1.Addr().String(), nil
		}
		return "", "", errUnknown
	}
	s1 := NewStreamLayer(l1, d1, "c1.example:7401", resolve)
	require.Equal(t, "c1.example:7401", s1.Addr().String())
	require.Equal(t, "tcp", s1.Addr().Network())
	s2 := NewStreamLayer(l2, d2, "", resolve)
	require.Equal(t, l2.Addr(), s2.Addr())

	conn, err := s2.Dial("c1", time.Minute)
	require.NoError(t, err)
	accepted := mustAccept(t, s1)
	requireTalk(t, conn, accepted)
	peer, _ := PeerOf(accepted)
	require.Equal(t, "c2", peer.ID)
	require.Equal(t, KindControlRaft, peer.Kind)
	require.NoError(t, conn.Close())

	_, err = s2.Dial("c7", 0)
	require.ErrorIs(t, err, errUnknown)
	_, err = s2.Dial("c9", 0) // c1 answers there
	require.ErrorIs(t, err, ErrWrongNode)

	direct := NewStreamLayer[serverAddress](l1, d1, "", nil)
	conn, err = direct.Dial(serverAddress(l2.Addr().String()), 0)
	require.NoError(t, err)
	_ = mustAccept(t, s2)
	require.NoError(t, conn.Close())
	require.NoError(t, s2.Close())
	_, err = direct.Dial(serverAddress(l2.Addr().String()), time.Minute)
	require.ErrorIs(t, err, ErrUnknownKind)
}
