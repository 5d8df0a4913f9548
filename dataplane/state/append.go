package state

import (
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// append appends messages, or answers a retry. The order of its checks is part
// of the API: not found, known key, known ids, tombstoned, version.
func (a *applier) append(op *operation) (Outcome, error) {
	d, err := a.conversation(op.key)
	if err != nil {
		return Outcome{}, err
	}
	if !d.exists {
		return Outcome{Err: rpc.ErrNotFound}, nil
	}
	if len(op.idemKey) > 0 {
		known, outcome, err := a.firstAnswer(d, op)
		if known || err != nil {
			return outcome, err
		}
	}
	messages := a.command.messages[op.from:op.to]
	fresh, err := a.resolve(d, messages)
	switch {
	case err != nil:
		return Outcome{}, err
	case fresh == 0:
		return Outcome{Reply: a.duplicate()}, nil
	case d.rec.tombstoned:
		return Outcome{Err: rpc.ErrTombstoned}, nil
	case op.hasIfVersion && op.ifVersion != d.rec.version:
		return Outcome{Err: &rpc.VersionConflictError{Current: d.rec.version}}, nil
	}
	reply, err := a.write(d, op, messages)
	return Outcome{Reply: reply}, err
}

// firstAnswer looks for the idempotency key of an append.
func (a *applier) firstAnswer(d *dirty, op *operation) (known bool, outcome Outcome, err error) {
	if may, err := a.mayKnow(d, storage.SpaceIdempotency, op.idemKey); !may || err != nil {
		return false, Outcome{}, err
	}
	a.key = a.keys.idempotency(a.key[:0], d.rec.num, op.idemKey)
	row, err := a.row(a.key)
	if row == nil || err != nil {
		return false, Outcome{}, err
	}
	digest, reply, err := decodeAnswer(row)
	if err != nil {
		return true, Outcome{}, err
	}
	if *digest != *op.idemDigest {
		return true, Outcome{Err: rpc.ErrIdempotencyConflict}, nil
	}
	reply.Duplicate = true
	return true, Outcome{Reply: reply}, nil
}

// resolution says what is known of one message of an append.
type resolution struct {
	match remembered // the same id with the same content, when seq is not 0
	// newest is the newest message with the id, when seq is not 0, and digest
	// that of its content.
	newest remembered
	digest [32]byte
	row    int // length of the newest's row
}

// resolve fills a.resolved and returns how many messages are not known.
func (a *applier) resolve(d *dirty, messages []message) (fresh int, err error) {
	a.resolved = a.resolved[:0]
	for i := range messages {
		var r resolution
		if id := messages[i].id; len(id) > 0 {
			may, err := a.mayKnow(d, storage.SpaceMessageID, id)
			if err == nil && may {
				r, err = a.resolveOne(d, &messages[i])
			}
			if err != nil {
				return 0, err
			}
		}
		if r.match.seq == 0 {
			fresh++
		}
		a.resolved = append(a.resolved, r)
	}
	return fresh, nil
}

// resolveOne looks up a message with an id.
func (a *applier) resolveOne(d *dirty, m *message) (r resolution, err error) {
	a.key = a.keys.id(a.key[:0], d.rec.num, m.id)
	row, err := a.row(a.key)
	if row == nil || err != nil {
		return r, err
	}
	newest, digest, err := decodeNewest(row)
	if err != nil {
		return r, err
	}
	r.newest, r.digest, r.row = newest, *digest, len(row)
	if r.digest == *m.digest {
		r.match = newest
		return r, nil
	}
	if newest.revises == 0 {
		return r, nil // it has no older content
	}
	a.key = revision(a.key, m.digest)
	if row, err = a.row(a.key); row != nil && err == nil {
		r.match, err = decodeRevision(row)
	}
	return r, err
}

// duplicate answers an append of which every message is known: with the seqs
// and token counts of the first time, and the version of the newest append that
// held one of them, which for a repeated request is the version it answered.
func (a *applier) duplicate() *rpc.AppendReply {
	reply := &rpc.AppendReply{Duplicate: true, Messages: make([]rpc.Appended, len(a.resolved))}
	for i := range a.resolved {
		match := &a.resolved[i].match
		reply.Messages[i] = known(match)
		reply.Version = max(reply.Version, match.version)
		reply.TokenCount += match.tokens
	}
	reply.Seq, reply.LastSeq = reply.Messages[0].Seq, reply.Messages[len(reply.Messages)-1].Seq
	return reply
}

func known(r *remembered) rpc.Appended {
	return rpc.Appended{Seq: r.seq, TokenCount: r.tokens, Revises: r.revises, Duplicate: true}
}

// write appends the messages that are not known, at least one.
func (a *applier) write(d *dirty, op *operation, messages []message) (*rpc.AppendReply, error) {
	rec := &d.rec
	rec.version++
	rec.updated = a.now(d)
	d.changed = true
	// One allocation for the common reply of one message.
	single := &struct {
		reply    rpc.AppendReply
		messages [1]rpc.Appended
	}{}
	reply := &single.reply
	reply.Version = rec.version
	if reply.Messages = single.messages[:]; len(messages) > 1 {
		reply.Messages = make([]rpc.Appended, len(messages))
	}
	first := rec.last + 1
	for i := range messages {
		if err := a.writeOne(d, &messages[i], i, rec.last+1 > first, &reply.Messages[i]); err != nil {
			return nil, err
		}
		reply.TokenCount += reply.Messages[i].TokenCount
	}
	reply.Seq, reply.LastSeq = reply.Messages[0].Seq, reply.Messages[len(messages)-1].Seq
	if err := a.writeRelease(d, op, messages, reply); err != nil {
		return nil, err
	}
	return reply, a.forget(d, len(messages))
}

// writeOne appends message i of a command unless it is known; again says that
// the command has appended others before, which may have had the same id.
func (a *applier) writeOne(d *dirty, m *message, i int, again bool, out *rpc.Appended) error {
	r := &a.resolved[i]
	if again && len(m.id) > 0 {
		a.key = a.keys.id(a.key[:0], d.rec.num, m.id)
		if _, written := a.pending[string(a.key)]; written {
			var err error
			if *r, err = a.resolveOne(d, m); err != nil {
				return err
			}
		}
	}
	if r.match.seq != 0 {
		*out = known(&r.match)
		return nil
	}
	if err := a.writeMessage(d, m); err != nil {
		return err
	}
	*out = rpc.Appended{Seq: d.rec.last, TokenCount: m.tokens, Revises: r.newest.seq}
	if len(m.id) == 0 {
		return nil
	}
	return a.rememberID(d, m, r)
}

// writeMessage adds the message row, built in place in the batch.
func (a *applier) writeMessage(d *dirty, m *message) error {
	rec := &d.rec
	seq := rec.last + 1
	header, size := headerLen(rec.version, rec.stored), jsonLen(seq, len(m.content))
	op := a.batch.SetDeferred(prefixLen+16, header+size)
	a.keys.message(op.Key[:0], rec.num, seq)
	json := appendJSON(op.Value[header:header], seq, m.content, a.renderStamp(rec.updated))
	chain(a.hash, &rec.head, seq, json, &a.sum)
	rec.head = a.sum
	appendMessageHeader(op.Value[:0], rec)
	if err := op.Finish(); err != nil {
		return err
	}
	a.countRow(16, header+size, 0)
	a.meta.messages++
	a.messages++
	d.before = append(d.before, rec.stored)
	rec.stored += rowBytes(16, header+size)
	rec.last = seq
	if a.m.opts.OnCommit != nil {
		d.appended = append(d.appended, rpc.Message{Seq: seq, Version: rec.version, JSON: json})
	}
	return nil
}

// rememberID makes the message just written the newest with its id.
func (a *applier) rememberID(d *dirty, m *message, r *resolution) error {
	a.noteID(d, storage.SpaceMessageID, m.id)
	a.key = a.keys.id(a.key[:0], d.rec.num, m.id)
	mine := remembered{seq: d.rec.last, version: d.rec.version, tokens: m.tokens, revises: r.newest.seq}
	a.value = append(mine.append(a.value[:0]), m.digest[:]...)
	if err := a.remember(a.key, a.value, r.row); err != nil || r.newest.seq == 0 {
		return err
	}
	a.key = revision(a.key, &r.digest)
	a.value = r.newest.append(a.value[:0])
	return a.remember(a.key, a.value, 0)
}

// writeRelease notes what to forget with this append, and its idempotency key.
func (a *applier) writeRelease(d *dirty, op *operation, messages []message, reply *rpc.AppendReply) error {
	a.release = appendBytes(a.release[:0], op.idemKey)
	empty := len(a.release)
	for i := range messages {
		if m := &messages[i]; len(m.id) > 0 && !reply.Messages[i].Duplicate {
			a.release = appendRelease(a.release, d.rec.last-reply.Messages[i].Seq, m.id, m.digest)
		}
	}
	if len(op.idemKey) > 0 {
		a.noteID(d, storage.SpaceIdempotency, op.idemKey)
		a.key = a.keys.idempotency(a.key[:0], d.rec.num, op.idemKey)
		a.value = appendAnswer(a.value[:0], op.idemDigest, reply)
		if err := a.remember(a.key, a.value, 0); err != nil {
			return err
		}
	} else if len(a.release) == empty {
		return nil
	}
	d.rec.releases++
	a.key = a.keys.release(a.key[:0], d.rec.num, d.rec.last)
	return a.setRow(a.key, a.release, 0)
}
