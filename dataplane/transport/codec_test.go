package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// body encodes a message as node from.
func body(tb require.TestingT, from string, m any) []byte {
	e := encoder{own: []byte(from)}
	e.message(m)
	require.NoError(tb, e.err)
	return e.buf
}

func drawID(t *rapid.T, label string) []byte {
	return rapid.SampledFrom([][]byte{nil, []byte("sender"), []byte("other"), bytes.Repeat([]byte{0xff}, maxIDBytes)}).Draw(t, label)
}

func drawHeader(t *rapid.T) raft.RPCHeader {
	return raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersion(rapid.Int32().Draw(t, "version")),
		ID:              drawID(t, "id"), Addr: drawID(t, "addr"),
	}
}

// drawBytes never returns an empty slice that is not nil: the two are alike on
// the wire and come back as nil.
func drawBytes(t *rapid.T, label string) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, label)
	if len(b) == 0 {
		return nil
	}
	return b
}

func drawEntries(t *rapid.T, prev uint64) []*raft.Log {
	var logs []*raft.Log
	for i := range rapid.IntRange(0, 5).Draw(t, "entries") {
		l := &raft.Log{
			Index: prev + 1 + uint64(i), Term: rapid.Uint64().Draw(t, "term"),
			Type:       rapid.SampledFrom([]raft.LogType{raft.LogCommand, raft.LogNoop, raft.LogBarrier, raft.LogConfiguration}).Draw(t, "type"),
			Data:       drawBytes(t, "data"),
			Extensions: drawBytes(t, "extensions"),
		}
		if l.Type == raft.LogConfiguration {
			l.Data = configurationBytes()
		}
		if rapid.Bool().Draw(t, "dated") {
			l.AppendedAt = time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "sec"), rapid.Int64Range(0, 999_999_999).Draw(t, "nsec")).UTC()
		}
		logs = append(logs, l)
	}
	return logs
}

func configurationBytes() []byte {
	return raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "a", Address: "a"}, {Suffrage: raft.Nonvoter, ID: "b", Address: "b"},
	}})
}

func drawRequest(t *rapid.T) (kind, any) {
	u := func(label string) uint64 { return rapid.Uint64().Draw(t, label) }
	switch k := rapid.SampledFrom([]kind{kindAppend, kindVote, kindPreVote, kindTimeoutNow, kindSnapshot}).Draw(t, "kind"); k {
	case kindAppend:
		prev := rapid.Uint64Range(0, math.MaxUint64-10).Draw(t, "prev")
		return k, &raft.AppendEntriesRequest{
			RPCHeader: drawHeader(t), Term: u("term"), Leader: drawID(t, "leader"),
			PrevLogEntry: prev, PrevLogTerm: u("prevterm"), Entries: drawEntries(t, prev), LeaderCommitIndex: u("commit"),
		}
	case kindVote:
		return k, &raft.RequestVoteRequest{
			RPCHeader: drawHeader(t), Term: u("term"), Candidate: drawID(t, "candidate"),
			LastLogIndex: u("index"), LastLogTerm: u("lastterm"), LeadershipTransfer: rapid.Bool().Draw(t, "transfer"),
		}
	case kindPreVote:
		return k, &raft.RequestPreVoteRequest{RPCHeader: drawHeader(t), Term: u("term"), LastLogIndex: u("index"), LastLogTerm: u("lastterm")}
	case kindTimeoutNow:
		return k, &raft.TimeoutNowRequest{RPCHeader: drawHeader(t)}
	default:
		return k, &raft.InstallSnapshotRequest{
			RPCHeader: drawHeader(t), SnapshotVersion: 1, Term: u("term"), Leader: drawID(t, "leader"),
			LastLogIndex: u("index"), LastLogTerm: u("lastterm"), Peers: drawBytes(t, "peers"),
			Configuration: configurationBytes(), ConfigurationIndex: u("confindex"),
			Size: rapid.Int64Range(0, math.MaxInt64).Draw(t, "size"),
		}
	}
}

func drawReply(t *rapid.T) (k kind, sent, empty any) {
	term, yes := rapid.Uint64().Draw(t, "term"), rapid.Bool().Draw(t, "yes")
	switch rapid.IntRange(0, 4).Draw(t, "reply") {
	case 0:
		return kindAppendReply, &raft.AppendEntriesResponse{RPCHeader: drawHeader(t), Term: term, LastLog: rapid.Uint64().Draw(t, "last"),
			Success: yes, NoRetryBackoff: rapid.Bool().Draw(t, "nobackoff")}, new(raft.AppendEntriesResponse)
	case 1:
		return kindVoteReply, &raft.RequestVoteResponse{RPCHeader: drawHeader(t), Term: term, Peers: drawBytes(t, "peers"), Granted: yes}, new(raft.RequestVoteResponse)
	case 2:
		return kindPreVoteReply, &raft.RequestPreVoteResponse{RPCHeader: drawHeader(t), Term: term, Granted: yes}, new(raft.RequestPreVoteResponse)
	case 3:
		return kindTimeoutNowReply, &raft.TimeoutNowResponse{RPCHeader: drawHeader(t)}, new(raft.TimeoutNowResponse)
	default:
		return kindSnapshotReply, &raft.InstallSnapshotResponse{RPCHeader: drawHeader(t), Term: term, Success: yes}, new(raft.InstallSnapshotResponse)
	}
}

func TestRequestsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k, want := drawRequest(t)
		d := decoder{rest: body(t, "sender", want), peer: []byte("sender")}
		got, err := d.request(k)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestRepliesRoundTripAndOverwrite(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k, want, got := drawReply(t)
		if old, ok := got.(*raft.AppendEntriesResponse); ok {
			*old = raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ID: []byte("stale")}, Success: true, NoRetryBackoff: true, LastLog: 99}
		}
		d := decoder{rest: body(t, "sender", want), peer: []byte("sender")}
		require.NoError(t, d.reply(k, got))
		require.Equal(t, want, got)
	})
}

// Every proper prefix of a message, and every message with a byte more, is
// refused: nothing is guessed.
func TestCutAndPaddedMessagesAreRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k, m := drawRequest(t)
		whole := body(t, "sender", m)
		cut := decoder{rest: whole[:rapid.IntRange(0, len(whole)-1).Draw(t, "cut")], peer: []byte("sender")}
		_, err := cut.request(k)
		require.ErrorIs(t, err, ErrProtocol)
		padded := decoder{rest: append(bytes.Clone(whole), 0), peer: []byte("sender")}
		_, err = padded.request(k)
		require.ErrorIs(t, err, ErrProtocol)
	})
}

// Raft keeps entries, while the frame's memory is read into again.
func TestDecodedRequestsShareNoMemoryWithTheFrame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k, want := drawRequest(t)
		raw := body(t, "sender", want)
		d := decoder{rest: raw, peer: []byte("sender")}
		got, err := d.request(k)
		require.NoError(t, err)
		for i := range raw {
			raw[i] ^= 0xff
		}
		require.Equal(t, want, got)
	})
}

// Appending to one entry's data must not write into the next one's.
func TestEntriesCannotGrowIntoEachOther(t *testing.T) {
	t.Parallel()
	req := appendRequest("a", 3, 10)
	d := decoder{rest: body(t, "a", req), peer: []byte("a")}
	got := d.appendRequest()
	require.NoError(t, d.finish())
	_ = append(got.Entries[0].Data, bytes.Repeat([]byte{1}, 100)...)
	require.Equal(t, req.Entries[1], got.Entries[1])
}

func TestOwnIDTravelsAsFlag(t *testing.T) {
	t.Parallel()
	heartbeat := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("data-node-1"), Addr: []byte("data-node-1")},
		Leader:    []byte("data-node-1"), Term: 5,
	}
	require.Len(t, body(t, "data-node-1", heartbeat), 7)
}

// What hashicorp/raft would panic on stops at the transport.
func TestHostileRequestsAreRefused(t *testing.T) {
	t.Parallel()
	entries := func(logs ...*raft.Log) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{PrevLogEntry: 10, Entries: logs}
	}
	for name, tc := range map[string]struct {
		kind kind
		msg  any
	}{
		"gap before the entries":  {kindAppend, entries(&raft.Log{Index: 12})},
		"gap between entries":     {kindAppend, entries(&raft.Log{Index: 11}, &raft.Log{Index: 13})},
		"entries out of order":    {kindAppend, entries(&raft.Log{Index: 12}, &raft.Log{Index: 11})},
		"unknown entry type":      {kindAppend, entries(&raft.Log{Index: 11, Type: 77})},
		"deprecated entry type":   {kindAppend, entries(&raft.Log{Index: 11, Type: raft.LogRemovePeerDeprecated})},
		"unreadable membership":   {kindAppend, entries(&raft.Log{Index: 11, Type: raft.LogConfiguration, Data: []byte("\xc1garbage")})},
		"empty membership":        {kindAppend, entries(&raft.Log{Index: 11, Type: raft.LogConfiguration})},
		"snapshot of unknown":     {kindSnapshot, &raft.InstallSnapshotRequest{SnapshotVersion: 1, Configuration: []byte("x")}},
		"snapshot less than none": {kindSnapshot, &raft.InstallSnapshotRequest{Size: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := decoder{rest: body(t, "a", tc.msg), peer: []byte("a")}
			_, err := d.request(tc.kind)
			require.ErrorIs(t, err, ErrProtocol)
		})
	}
}

func TestCountsAreCheckedBeforeMemoryIsTaken(t *testing.T) {
	t.Parallel()
	e := encoder{own: []byte("a")}
	e.header(&raft.RPCHeader{ID: e.own, Addr: e.own}, flagOwnLeader)
	for range 4 {
		e.uvarint(1)
	}
	e.uvarint(maxEntries) // in no bytes
	d := decoder{rest: e.buf, peer: e.own}
	require.Empty(t, d.appendRequest().Entries)
	require.ErrorIs(t, d.finish(), ErrProtocol)
}

func TestEncoderBounds(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]any{
		"id":            &raft.RequestVoteRequest{Candidate: make([]byte, maxIDBytes+1)},
		"entries":       &raft.AppendEntriesRequest{Entries: appendRequest("a", maxEntries+1, 0).Entries},
		"configuration": &raft.InstallSnapshotRequest{Configuration: make([]byte, maxConfigurationBytes+1)},
		"frame":         appendRequest("a", 1, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := encoder{own: []byte("a"), buf: []byte("before")}
			require.ErrorIs(t, e.frame(kindAppend, 1, 1, m, 1<<19), ErrTooLarge)
			require.Equal(t, "before", string(e.buf), "nothing is left of the frame")
			require.NoError(t, e.frame(kindAppend, 1, 1, appendRequest("a", 1, 1), 1<<19), "and the next one fits")
		})
	}
}

func TestFailuresRoundTrip(t *testing.T) {
	t.Parallel()
	for reason, want := range map[refusal]error{
		refusedUnknownGroup: ErrUnknownGroup, refusedGroupBusy: ErrGroupBusy,
		refusedGroupClosed: ErrGroupClosed, refusedSnapshotLimit: ErrSnapshotLimit, 200: ErrProtocol,
	} {
		d := decoder{rest: body(t, "a", &failure{reason: reason})}
		require.ErrorIs(t, d.failure(), want)
	}
	d := decoder{rest: body(t, "a", &failure{text: strings.Repeat("x", maxErrorText+50)})}
	var remote *RemoteError
	require.ErrorAs(t, d.failure(), &remote)
	require.Len(t, remote.Text, maxErrorText)
	empty := decoder{}
	require.ErrorIs(t, empty.failure(), ErrProtocol)
}

func TestReplyOfAnotherKindIsRefused(t *testing.T) {
	t.Parallel()
	d := decoder{rest: body(t, "a", &raft.RequestVoteResponse{Granted: true})}
	require.ErrorIs(t, d.reply(kindVoteReply, new(raft.AppendEntriesResponse)), ErrProtocol)
}

func FuzzDecodeRequest(f *testing.F) {
	for _, m := range []any{
		appendRequest("a", 2, 30), &raft.RequestVoteRequest{Candidate: []byte("a")}, &raft.RequestPreVoteRequest{Term: 1 << 60},
		&raft.TimeoutNowRequest{}, &raft.InstallSnapshotRequest{SnapshotVersion: 1, Configuration: configurationBytes(), Size: 5},
		&raft.AppendEntriesRequest{Entries: []*raft.Log{{Index: 1, Type: raft.LogConfiguration, Data: configurationBytes()}}},
	} {
		for k := kindAppend; k <= kindSnapshot; k += 2 {
			f.Add(byte(k), body(f, "a", m))
		}
	}
	f.Fuzz(func(t *testing.T, k byte, raw []byte) {
		d := decoder{rest: raw, peer: []byte("a")}
		m, err := d.request(kind(k))
		if err != nil {
			return
		}
		again := decoder{rest: body(t, "a", m), peer: []byte("a")}
		same, err := again.request(kind(k))
		require.NoError(t, err)
		require.Equal(t, m, same)
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add(body(f, "a", &raft.AppendEntriesResponse{Success: true}))
	f.Add(body(f, "a", &raft.RequestVoteResponse{Peers: []byte("p")}))
	f.Add(body(f, "a", &hello{version: 1, from: []byte("a"), to: []byte("b")}))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		for k, resp := range map[kind]any{
			kindAppendReply: new(raft.AppendEntriesResponse), kindVoteReply: new(raft.RequestVoteResponse),
			kindPreVoteReply: new(raft.RequestPreVoteResponse), kindTimeoutNowReply: new(raft.TimeoutNowResponse),
			kindSnapshotReply: new(raft.InstallSnapshotResponse),
		} {
			d := decoder{rest: raw, peer: []byte("a")}
			_ = d.reply(k, resp)
		}
		d := decoder{rest: raw}
		_ = d.failure()
		d = decoder{rest: raw}
		_, _ = d.hello()
	})
}
