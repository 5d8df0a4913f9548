package main

import (
	"math/rand/v2"
	"strconv"
)

// texts are the bodies that a benchmark appends: different enough that nobody
// wins by compressing one text against the next.
type texts [][]byte

// distinctTexts are how many different texts there are.
const distinctTexts = 997

const letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789"

// newTexts makes texts of n bytes that need no escaping in JSON, the same in
// every process.
func newTexts(n int) texts {
	r := rand.New(rand.NewPCG(1, 2))
	out := make(texts, distinctTexts)
	for i := range out {
		out[i] = make([]byte, n)
		for j := range out[i] {
			out[i][j] = letters[r.IntN(len(letters))]
		}
	}
	return out
}

func (t texts) at(i int) []byte { return t[i%len(t)] }

// appendMessage appends the JSON of a message with one text part.
func appendMessage(dst, text []byte) []byte {
	dst = append(dst, `{"role":"user","parts":`...)
	dst = appendParts(dst, text)
	return append(dst, '}')
}

func appendParts(dst, text []byte) []byte {
	dst = append(dst, `[{"type":"text","text":"`...)
	dst = append(dst, text...)
	return append(dst, `"}]`...)
}

// conversation names the i-th conversation of a benchmark.
func conversation(i int) string { return "bench-" + strconv.Itoa(i) }

func path(id string) string { return "/v1/conversations/" + id }
