package state

import "github.com/fastpaca/fastpaca/dataplane/rpc"

// Bounds of the command grammar. Replicas that run different builds must accept
// the same commands, so these never change within a command version; they leave
// room above the bounds of package rpc, which callers enforce and may raise.
const (
	maxKeyBytes       = 1 << 10
	maxIDBytes        = 255 // its length is stored in one byte
	maxIdemKeyBytes   = 1 << 10
	maxMetadataBytes  = 64 << 10
	maxContentBytes   = 4 << 20
	maxAppendMessages = 4096
	maxWatermarks     = 64 << 10
	maxCommandOps     = 64 << 10
)

// The grammar has room for everything that package rpc lets through: a negative
// difference does not compile.
const (
	_ = uint(maxKeyBytes - rpc.MaxKeyBytes)
	_ = uint(maxIDBytes - rpc.MaxMessageIDBytes)
	_ = uint(maxIdemKeyBytes - rpc.MaxIdempotencyKeyBytes)
	_ = uint(maxMetadataBytes - rpc.MaxMetadataBytes)
	_ = uint(maxContentBytes - rpc.MaxMessageBytes)
	_ = uint(maxAppendMessages - rpc.MaxAppendMessages)
)

// Rules of the state machine. They decide what replicas store, so they belong to
// the command version as well.
const (
	// rememberedMessages is how many of the newest messages of a conversation
	// have their ids and idempotency keys remembered, hot or not.
	rememberedMessages = 10_000
	// forgetStep and forgetMost bound the sequences released at once: fewer than
	// the first are not worth it, more than the second would stall the group.
	forgetStep = 64
	forgetMost = 1024
	// inlineMetadataBytes is the largest metadata kept inside the conversation
	// row, which every append rewrites. Longer metadata has a row of its own.
	inlineMetadataBytes = 256
)

// Choices of one replica: they change what work costs, never what is stored.
const (
	// pointDeletes is the longest run trimmed by single deletions. Many small
	// range deletions slow down every reader of the same memtable.
	pointDeletes = 64
	// batchBytes and batchMessages bound one storage batch of Apply; a single
	// entry may go beyond. batchMessages also keeps what forget reads out of
	// the uncommitted batch, see forget.
	batchBytes    = 4 << 20
	batchMessages = 4096
	// maxWaiters bounds the callers blocked in WaitSeq of one machine.
	maxWaiters = 16 << 10
	// maxList bounds the conversations of one List.
	maxList = 1000
)

// batchMessages must stay well below rememberedMessages.
const _ = uint(rememberedMessages - 2*batchMessages)
