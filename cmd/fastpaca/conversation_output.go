package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fastpaca/fastpaca/sdk/go"
)

// defaultColumns is the width of a terminal that does not tell.
const defaultColumns = 80

// printer writes what a verb has to say, for people or for programs.
type printer struct {
	w       io.Writer
	json    bool
	colours bool
	columns int // of the terminal; 0 if there is none, and nothing is cut
}

func newPrinter(w io.Writer, asJSON bool) printer {
	columns, terminal := terminalWidth(w)
	return printer{w: w, json: asJSON, columns: columns, colours: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// object prints a value as one line of JSON.
func (p printer) object(value any) error {
	e := json.NewEncoder(p.w)
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// Colours, as the terminal takes them.
const (
	dim   = "2"
	bold  = "1"
	plain = ""
)

var roleColours = map[string]string{"user": "36", "assistant": "32", "system": "33", "tool": "35"}

func (p printer) paint(colour, text string) string {
	if !p.colours || colour == plain {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// Widths of the columns of messages.
const (
	seqWidth   = 7
	timeLayout = "2006-01-02 15:04:05"
	roleWidth  = 10
	gutter     = "  "
)

// header prints the names of the columns of messages.
func (p printer) header() {
	if p.json {
		return
	}
	fmt.Fprintln(p.w, p.paint(dim, pad("SEQ", -seqWidth)+gutter+pad("TIME", len(timeLayout))+gutter+pad("ROLE", roleWidth)+gutter+"TEXT"))
}

// message prints one message: a row, or its JSON as it is stored.
func (p printer) message(m fastpaca.Message) error {
	if p.json {
		_, err := p.w.Write(jsonLine(m.Raw()))
		return err
	}
	role := printable(m.Role)
	text := preview(m)
	if p.columns > 0 {
		used := seqWidth + len(timeLayout) + max(roleWidth, utf8.RuneCountInString(role)) + 3*len(gutter)
		text = truncate(text, max(p.columns-used, 20))
	}
	_, err := fmt.Fprintln(p.w, p.paint(dim, pad(strconv.FormatInt(m.Seq, 10), -seqWidth))+gutter+
		p.paint(dim, clock(m.InsertedAt))+gutter+p.paint(roleColours[m.Role], pad(role, roleWidth))+gutter+text)
	return err
}

// jsonLine is JSON on one line, byte for byte unless there are line breaks in it.
func jsonLine(raw []byte) []byte {
	if bytes.ContainsAny(raw, "\n\r") {
		var b bytes.Buffer
		if json.Compact(&b, raw) == nil {
			raw = b.Bytes()
		}
	}
	return append(raw[:len(raw):len(raw)], '\n')
}

// preview is a message as one line of text; parts that are not text are named.
func preview(m fastpaca.Message) string {
	var texts []string
	for _, part := range m.Parts {
		if part.Type() == "text" {
			texts = append(texts, printable(part.Text()))
		} else {
			texts = append(texts, "["+printable(part.Type())+"]")
		}
	}
	return strings.Join(texts, " ")
}

// printable makes one line of text that does nothing to a terminal.
func printable(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\ufffd")), " ")
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\u200d' || unicode.IsPrint(r) { // joined emoji stay joined
			return r
		}
		return '\ufffd'
	}, s)
}

func truncate(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// pad fills up to a width; a negative one aligns to the right.
func pad(s string, width int) string {
	missing := max(width, -width) - utf8.RuneCountInString(s)
	switch {
	case missing <= 0:
		return s
	case width < 0:
		return strings.Repeat(" ", missing) + s
	}
	return s + strings.Repeat(" ", missing)
}

// clock is a time as people near this machine read it.
func clock(t time.Time) string { return t.Local().Format(timeLayout) }

// conversation prints one conversation in full.
func (p printer) conversation(info fastpaca.ConversationInfo) error {
	if p.json {
		return p.object(info)
	}
	for _, line := range [][2]string{
		{"id", printable(info.ID)}, {"state", standing(info)}, {"version", fmt.Sprint(info.Version)}, {"last seq", fmt.Sprint(info.LastSeq)},
		{"archived", fmt.Sprint(info.ArchivedSeq)}, {"created", clock(info.CreatedAt)}, {"updated", clock(info.UpdatedAt)},
		{"metadata", printable(string(info.Metadata))}, {"head", info.Head},
	} {
		if _, err := fmt.Fprintln(p.w, p.paint(dim, pad(line[0], 10))+line[1]); err != nil {
			return err
		}
	}
	return nil
}

func standing(info fastpaca.ConversationInfo) string {
	if info.Tombstoned {
		return "tombstoned"
	}
	return "open"
}

// listed prints one conversation of a list.
func (p printer) listed(info fastpaca.ConversationInfo) error {
	if p.json {
		return p.object(info)
	}
	_, err := fmt.Fprintln(p.w, pad(fmt.Sprint(info.LastSeq), -9)+gutter+p.paint(dim, clock(info.UpdatedAt))+gutter+pad(standing(info), 10)+gutter+p.paint(bold, printable(info.ID)))
	return err
}

func (p printer) listHeader() {
	if !p.json {
		fmt.Fprintln(p.w, p.paint(dim, pad("LAST SEQ", -9)+gutter+pad("UPDATED", len(timeLayout))+gutter+pad("STATE", 10)+gutter+"ID"))
	}
}

// appended prints what became of a message.
func (p printer) appended(a fastpaca.Appended) error {
	if p.json {
		return p.object(a)
	}
	line := fmt.Sprintf("seq %d  version %d  tokens %d  id %s", a.Seq, a.Version, a.TokenCount, printable(a.ID))
	if a.Duplicate {
		line += "  (stored before)"
	}
	if a.Revises > 0 {
		line += fmt.Sprintf("  (revises %d)", a.Revises)
	}
	_, err := fmt.Fprintln(p.w, line)
	return err
}
