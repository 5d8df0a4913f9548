package rpc

import "context"

// Feed tells what is committed to a conversation as it happens. It is a stream of
// news, not the record: the log is. A receiver keeps a cursor; whenever the news
// does not continue at its cursor (after it subscribed, after it or the network
// was slow, after the node restored a snapshot) it reads what is between with
// Messages. So nothing in between has to remember anything for a slow one.
type Feed interface {
	// Subscribe has the conversation's news delivered until stop is called or
	// the subscription ends. The conversation need not exist. Only the leader of
	// the group takes subscriptions; others return a NotLeaderError.
	//
	// Everything committed after what the reply tells is delivered, possibly
	// beginning before Subscribe has returned; what the reply already covers may
	// be delivered too. So may End be called before Subscribe has returned; after
	// an error it never is. ctx bounds the call, not the subscription. stop is safe
	// to call at any time, more than once, from any goroutine but that of a
	// delivery; one delivery may be under way when it returns.
	Subscribe(ctx context.Context, key Key, to Subscriber) (reply *SubscribeReply, stop func(), err error)
}

// Subscriber receives the news of one subscription. Its methods are called one
// at a time, must return at once, and must not call stop.
type Subscriber interface {
	// Deliver tells what happened, in the order in which it did.
	Deliver(News)
	// End is the last call of a subscription that ends by itself: the node stops
	// leading the group (NotLeaderError), goes down (ErrClosed), or cannot be
	// reached (ErrUnavailable). Subscribing again, then reading from the cursor,
	// loses nothing.
	End(err error)
}

// SubscribeReply is the conversation as it stood when the subscription began.
// All fields are zero when it does not exist.
type SubscribeReply struct {
	Exists     bool
	LastSeq    uint64
	Version    uint64
	Tombstoned bool
}

// News is what became of a conversation. Receivers share it and must not modify
// what it points to.
type News struct {
	// Messages were committed: a run without holes, LastSeq its last. When it is
	// empty while LastSeq rose, the messages are to be read from the log.
	Messages []Message
	// LastSeq and Tombstoned tell how the conversation stands.
	LastSeq    uint64
	Tombstoned bool
}

// StateHash identifies the state of one replica: replicas of a group have equal
// hashes at equal indexes.
type StateHash struct {
	Group   Group
	Applied uint64 // index of the newest entry that the hash covers
	Hash    [32]byte
}

// Inspector answers questions of operators and tests about one node's replicas.
type Inspector interface {
	// StateHash hashes the state of the node's own replica, whoever leads. It
	// reads all of it. ErrNotFound: the node holds no replica of the group.
	StateHash(ctx context.Context, group Group) (*StateHash, error)
}
