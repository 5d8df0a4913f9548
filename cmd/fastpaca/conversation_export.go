package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"
)

// exportConfig is everything `fastpaca conversation export` can be told.
type exportConfig struct {
	conversationConfig
	File   string
	Resume bool
	From   int64
}

func conversationExportCommand() *cli.Command {
	conf := exportConfig{}
	return &cli.Command{
		Name: "export", Usage: "write all messages as lines of JSON", ArgsUsage: "ID",
		Description: "One message per line, byte for byte as it is stored and hashed (line breaks between its\n" +
			"tokens excepted), in order and without gaps, the archive included.\n\n" +
			"Example:\n   fastpaca conversation export chat-123 > chat-123.jsonl\n" +
			"   fastpaca conversation export chat-123 -f chat-123.jsonl --resume",
		Flags: append(conf.flags(),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "write to `FILE`, which must not exist", Destination: &conf.File},
			&cli.BoolFlag{Name: "resume", Usage: "go on after the last whole line of --file, if it exists", Destination: &conf.Resume},
			&cli.Int64Flag{Name: "from", Value: 1, Usage: "begin at sequence `SEQ`", Destination: &conf.From}),
		Action: conf.action(oneID, conf.run),
	}
}

func (c *exportConfig) run(s *session) error {
	if c.Resume && c.File == "" {
		return usageError{errors.New("--resume is for --file")}
	}
	info, err := s.conversation().Get(s.ctx)
	if err != nil {
		return err
	}
	e := export{session: s, from: max(c.From, 1), last: info.LastSeq, started: time.Now()}
	if c.File == "" {
		return e.write(s.printer.w)
	}
	file, err := c.open(&e)
	if err != nil {
		return err
	}
	err = e.write(file)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		fmt.Fprintf(s.stderr, "%s is not complete; --resume goes on where it ends.\n", c.File)
	}
	return err
}

// open opens the file and moves the start of the export behind what it holds.
func (c *exportConfig) open(e *export) (*os.File, error) {
	if !c.Resume {
		file, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%s exists; --resume goes on where it ends", c.File)
		}
		return file, err
	}
	file, err := os.OpenFile(c.File, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	seq, end, err := lastLine(file)
	if err == nil {
		err = file.Truncate(end) // what a crash left of a line
	}
	if err == nil {
		_, err = file.Seek(end, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("resume %s: %w", c.File, err), file.Close())
	}
	if seq > 0 {
		e.from = seq + 1
	}
	return file, nil
}

// tailBytes is how much of a file is read at a time to find its last line.
const tailBytes = 64 << 10

// lastLine returns the sequence on the last whole line, and where that ends.
// Both are 0 when there is none.
func lastLine(file *os.File) (seq, end int64, err error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, err
	}
	var tail []byte
	for at := size; at > 0 && bytes.Count(tail, []byte("\n")) < 2; {
		n := min(at, tailBytes)
		at -= n
		chunk := make([]byte, n, int(n)+len(tail))
		if _, err := file.ReadAt(chunk, at); err != nil {
			return 0, 0, err
		}
		tail = append(chunk, tail...)
	}
	stop := bytes.LastIndexByte(tail, '\n')
	if stop < 0 {
		return 0, 0, nil
	}
	line := tail[bytes.LastIndexByte(tail[:stop], '\n')+1 : stop]
	var m struct {
		Seq int64 `json:"seq"`
	}
	if err := json.Unmarshal(line, &m); err != nil || m.Seq < 1 {
		return 0, 0, errors.New("its last line is not a message of an export")
	}
	return m.Seq, size - int64(len(tail)-stop-1), nil
}

// export is one run of the verb.
type export struct {
	session    *session
	from, last int64
	started    time.Time
	drawn      time.Time
	messages   int64
	bytes      int64
}

// exportBufferBytes makes few writes of many messages.
const exportBufferBytes = 256 << 10

func (e *export) write(w io.Writer) error {
	out := bufio.NewWriterSize(w, exportBufferBytes)
	err := e.copy(out)
	e.finish()
	return errors.Join(err, out.Flush()) // what was read is worth keeping either way
}

func (e *export) copy(out *bufio.Writer) error {
	next := e.from
	for m, err := range e.session.conversation().Messages(e.session.ctx, e.from) {
		if err != nil {
			return err
		}
		if m.Seq != next {
			return fmt.Errorf("the server sent message %d after %d", m.Seq, next-1)
		}
		next++
		n, err := out.Write(jsonLine(m.Raw()))
		if err != nil {
			return err
		}
		e.messages++
		e.bytes += int64(n)
		e.draw(false)
	}
	return nil
}

// drawEvery is how often the line of progress changes.
const drawEvery = 100 * time.Millisecond

// draw rewrites the line of progress, on a terminal only.
func (e *export) draw(always bool) {
	now := time.Now()
	if (!always && now.Sub(e.drawn) < drawEvery) || !isTerminal(e.session.stderr) {
		return
	}
	e.drawn = now
	total := max(e.last, e.from+e.messages-1) - e.from + 1
	fmt.Fprintf(e.session.stderr, "\r\x1b[K%d of %d messages, %.1f MB, %.0f/s", e.messages, total,
		float64(e.bytes)/1e6, float64(e.messages)/max(now.Sub(e.started).Seconds(), 0.001))
}

func (e *export) finish() {
	if isTerminal(e.session.stderr) {
		e.draw(true)
		fmt.Fprintln(e.session.stderr)
	}
}
