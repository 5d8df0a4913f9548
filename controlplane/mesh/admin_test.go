package mesh

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Operators need no id; who may open what they open is the kind's business.
func TestAdminConnections(t *testing.T) {
	t.Parallel()
	for role, allowed := range map[Role]bool{RoleAdmin: true, RoleControl: true, RoleServer: true, RoleRouter: true, RoleData: false} {
		require.Equal(t, allowed, KindAdmin.allows(role), role)
	}
	require.False(t, KindRaft.allows(RoleAdmin))
	require.False(t, KindControlRaft.allows(RoleAdmin))
	require.Equal(t, "admin", RoleAdmin.String())
	require.Equal(t, "admin", KindAdmin.String())

	creds := Credentials{Token: "0123456789abcdef"}
	listening := node("c1", creds)
	listening.Role = RoleControl
	l, err := Listen("127.0.0.1:0", listening)
	require.NoError(t, err)
	defer l.Close()
	accepted := l.Accept(KindAdmin)
	operator := node("", creds)
	operator.Role = RoleAdmin
	conn := mustDial(t, mustDialer(t, operator), KindAdmin, 0, l.Addr())
	defer conn.Close()
	at, err := accepted.Accept()
	require.NoError(t, err)
	defer at.Close()
	peer, ok := PeerOf(at)
	require.True(t, ok)
	require.Equal(t, RoleAdmin, peer.Role)
	_, err = mustDialer(t, operator).Dial(testContext(t), KindRaft, 0, l.Addr().String())
	require.ErrorIs(t, err, ErrForbidden)
}
