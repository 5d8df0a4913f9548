package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// consumers are files of a project that depends on the SDK, by name: the same
// entry points in both formats, and code for the compiler at its strictest.
var consumers = map[string]string{
	"package.json": `{"name":"empty","private":true}`,
	"import.mjs": `
import * as sdk from '@fastpaca/fastpaca';
import * as raw from '@fastpaca/fastpaca/raw';
import { toUIMessages } from '@fastpaca/fastpaca/ai-sdk';
import { criaHistory } from '@fastpaca/fastpaca/cria';
if (toUIMessages([]).length || criaHistory([]).length) throw new Error('not empty');
export { sdk, raw };
`,
	"require.cjs": `
const { toUIMessages } = require('@fastpaca/fastpaca/ai-sdk');
const { criaHistory } = require('@fastpaca/fastpaca/cria');
if (toUIMessages([]).length || criaHistory([]).length) throw new Error('not empty');
exports.sdk = require('@fastpaca/fastpaca');
exports.raw = require('@fastpaca/fastpaca/raw');
`,
	"consumer.mts": `
import { createClient, FastpacaError, type Message } from '@fastpaca/fastpaca';
import { createChatStore, createResumableChat } from '@fastpaca/fastpaca/ai-sdk';
import { criaHistory, createSummaryStore } from '@fastpaca/fastpaca/cria';
import { tailMessages } from '@fastpaca/fastpaca/raw';
const fastpaca = createClient({ baseUrl: 'http://localhost:4000/v1' });
const conv = await fastpaca.conversation('chat-123', { metadata: { user_id: 'u_123', channel: 'web' } });
await conv.append({ role: 'user', parts: [{ type: 'text', text: 'Hello!' }] });
interface Note { type: 'note'; body: string }
const note: Note = { type: 'note', body: 'x' };
await conv.append({ role: 'user', parts: [note] }, { ifVersion: 1 });
for await (const m of conv.subscribe<Note>({ from: 1 })) { const body: string = m.parts[0]!.body; void body; }
const { messages }: { messages: Message[] } = await conv.tail({ limit: 100 });
const first: string | undefined = messages[0]?.id;
try { await conv.get(); } catch (e) { if (e instanceof FastpacaError && e.retryable) throw e; }
void [first, criaHistory(messages), createSummaryStore(fastpaca), createChatStore(fastpaca), createResumableChat(fastpaca), tailMessages];
`,
	"readme.mts": readme,
	"tsconfig.json": `{"compilerOptions":{"target":"ES2022","module":"NodeNext","lib":["ES2022","DOM","DOM.Iterable","DOM.AsyncIterable"],` +
		`"types":[],"strict":true,"exactOptionalPropertyTypes":true,"noUncheckedIndexedAccess":true,"noPropertyAccessFromIndexSignature":true,` +
		`"skipLibCheck":false,"noEmit":true},"files":["consumer.mts","readme.mts"]}`,
}

// readme is the snippet that people copy, to the letter.
const readme = `import { createClient } from '@fastpaca/fastpaca';

const fastpaca = createClient({ baseUrl: '` + readmeURL + `' });

// Create or get conversation (idempotent)
const conv = await fastpaca.conversation('chat-123', {
  metadata: { user_id: 'u_123', channel: 'web' }
});

// Append messages
await conv.append({ role: 'user', parts: [{ type: 'text', text: 'Hello!' }] });
await conv.append({ role: 'assistant', parts: [{ type: 'text', text: 'Hi there!' }] });

// Get messages for your prompt system
const { messages } = await conv.tail({ limit: 100 });

// Replay from a specific sequence (for gap recovery)
const { messages: replay } = await conv.replay({ from: 50, limit: 50 });
`

const readmeURL = "http://localhost:4000/v1"

// runReadme runs the snippet as it stands in the SDK's README, but for the URL.
func runReadme(t *testing.T, base string, e *engine, project string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "sdk", "typescript", "README.md"))
	require.NoError(t, err)
	require.Contains(t, string(text), "```ts\n"+readme)
	program := strings.Replace(readme, readmeURL, base+"/v1", 1) +
		"console.log(JSON.stringify([messages.slice(-2).map((m) => [m.role, m.parts[0].text]), Array.isArray(replay)]));\n"
	require.NoError(t, os.WriteFile(filepath.Join(project, "readme.mjs"), []byte(program), 0o644))
	out := must(t, command(project, e.node, "readme.mjs"))
	require.Equal(t, `[[["user","Hello!"],["assistant","Hi there!"]],true]`+"\n", out)
}

// packSDK packs the SDK and installs that into an empty project, as somebody who
// depends on it does. It returns the project's directory.
func packSDK(t *testing.T, f *tools) string {
	t.Helper()
	project := t.TempDir()
	for name, text := range consumers {
		require.NoError(t, os.WriteFile(filepath.Join(project, name), []byte(text), 0o644))
	}
	must(t, command(f.sdk, f.npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", project)) // built already
	packed, err := filepath.Glob(filepath.Join(project, "*.tgz"))
	require.NoError(t, err)
	require.Len(t, packed, 1)
	must(t, command(project, f.npm, "install", "--no-audit", "--no-fund", "--offline", packed[0]))
	entries, err := os.ReadDir(filepath.Join(project, "node_modules"))
	require.NoError(t, err)
	for _, e := range entries {
		require.Contains(t, []string{"@fastpaca", ".package-lock.json"}, e.Name(), "the SDK depends on nothing")
	}
	must(t, command(project, f.node.node, f.compiler(), "-p", "."))
	return project
}

// TestPackage runs the SDK's own checks: the contract it was generated from, its
// types, size and packaging, and its unit tests in every Node.
func TestPackage(t *testing.T) {
	tools := findTools(t)
	t.Parallel()
	t.Run(tools.node.name, func(t *testing.T) {
		t.Log(must(t, command(tools.sdk, tools.node.node, "scripts/test.mjs", "built")))
	})
	if tools.newest == nil {
		missing(t.Name(), "the unit tests of the AI SDK adapter take Node 22, and so does the generator")
		return
	}
	t.Run(tools.newest.name, func(t *testing.T) {
		t.Log(must(t, command(tools.sdk, tools.newest.node, "scripts/test.mjs", "unit")))
	})
	t.Run("generated", func(t *testing.T) {
		must(t, command(tools.sdk, tools.newest.node, "generate/run.mjs", "--check"))
	})
}
