package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/citywarden/citywarden/app"
)

// block is one fenced block of a document.
type block struct {
	lang, name string // of "```yaml rules/a.yaml": "yaml" and "rules/a.yaml"
	text       string
	line       int
}

func blocksOf(t *testing.T, path string) []block {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	var open *block
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		fence, ok := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case ok && open == nil:
			lang, name, _ := strings.Cut(fence, " ")
			open = &block{lang: lang, name: name, line: n}
		case ok:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line
		}
	}
	return out
}

// TestGuidesOfBothLanguages: who reads a guide in Chinese gets the same chapters,
// tables and examples as who reads it in English, and in the same order. What has a
// name or is run is the same; blocks to look at only may be in either language. Each
// chapter names the same commands, keys and paths.
func TestGuidesOfBothLanguages(t *testing.T) {
	run := func(path string) []block {
		return slices.DeleteFunc(blocksOf(t, path), func(b block) bool { return b.lang == "" })
	}
	for _, guide := range []string{"administrators", "operators", "rule-engineers", "vendors"} {
		path := "../../docs/" + guide
		en, zh := run(path+".md"), run(path+".zh.md")
		if len(en) != len(zh) || len(en) == 0 {
			t.Errorf("%s: %d blocks are run in English, %d in Chinese", guide, len(en), len(zh))
		}
		for i := range min(len(en), len(zh)) {
			if a, b := en[i], zh[i]; a.lang != b.lang || a.name != b.name || a.text != b.text {
				t.Errorf("%s.md:%d and %s.zh.md:%d differ:\n%s %s\n%s\n%s %s\n%s", guide, a.line, guide, b.line, a.lang, a.name, a.text, b.lang, b.name, b.text)
			}
		}
		if a, b := outlineOf(t, path+".md"), outlineOf(t, path+".zh.md"); !slices.Equal(a, b) {
			t.Errorf("%s: chapters with their rows of tables and items of lists are\n%s\nin English, in Chinese\n%s", guide, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
		names, called := namesOf(t, path+".md"), namesOf(t, path+".zh.md")
		for i := range min(len(names), len(called)) {
			for _, n := range lacking(names[i], called[i]) {
				t.Errorf("%s.md has `%s` in its chapter %d, %s.zh.md has not", guide, n, i, guide)
			}
			for _, n := range lacking(called[i], names[i]) {
				t.Errorf("%s.zh.md has `%s` in its chapter %d, %s.md has not", guide, n, i, guide)
			}
		}
	}
}

// outlineOf is what a document has whatever its language: how deep each chapter is, and how
// many rows of tables, items and steps stand in it.
func outlineOf(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	depth, rows, items, code := "", 0, 0, false
	end := func() { out = append(out, fmt.Sprintf("%s %d rows, %d items", depth, rows, items)) }
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.HasPrefix(line, "```"):
			code = !code
		case code:
		case strings.HasPrefix(line, "#"):
			end()
			depth, _, _ = strings.Cut(line, " ")
			rows, items = 0, 0
		case strings.HasPrefix(line, "|"):
			rows++
		case listItem.MatchString(line):
			items++
		}
	}
	end()
	return out
}

// namesOf is what each chapter has between backquotes.
func namesOf(t *testing.T, path string) (out [][]string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := fenced.ReplaceAllString(string(b), "")
	for _, chapter := range chapterHead.Split(text, -1) {
		var names []string
		for _, m := range quoted.FindAllStringSubmatch(chapter, -1) {
			names = append(names, strings.Join(strings.Fields(m[1]), " "))
		}
		out = append(out, names)
	}
	return out
}

// lacking returns the names that others has not. What a reader puts there, like a
// condition, may be in either language.
func lacking(names, others []string) (out []string) {
	for _, n := range names {
		if !slices.ContainsFunc(others, func(o string) bool { return n == o || matches(n, o) || matches(o, n) }) {
			out = append(out, n)
		}
	}
	return out
}

// matches reports whether name is pattern with the Chinese words in it translated.
func matches(pattern, name string) bool {
	if !hanWords.MatchString(pattern) {
		return false
	}
	parts := hanWords.Split(pattern, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, `\w+`) + "$").MatchString(name)
}

var (
	fenced      = regexp.MustCompile("(?ms)^```.*?^```$")
	chapterHead = regexp.MustCompile(`(?m)^#+ `)
	quoted      = regexp.MustCompile("`([^`]+)`")
	hanWords    = regexp.MustCompile(`\p{Han}+`)
)

var listItem = regexp.MustCompile(`^(-|\d+\.) `)

var makeTarget = regexp.MustCompile(`(?m)^make ([a-z-]+)`)

// TestDocs runs every command of README and docs, in the order in which a
// reader would, against a platform on free ports. Blocks marked yaml or python with
// a file name are written first; what a block marked output says must come out of the
// commands before it. Blocks marked c or cpp are for microcontrollers: playFirmware.
// Blocks marked console are make targets, which CI runs.
func TestDocs(t *testing.T) {
	if raced { // the scripts have the platform do the same
		t.Skip("takes long")
	}
	t.Parallel()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(docs, "../../README.md") {
		t.Run(filepath.Base(doc), func(t *testing.T) {
			t.Parallel() // each has a platform of its own
			var p *process
			dir := t.TempDir()
			output := ""
			platform := func() *process {
				if p == nil {
					p = startPlatform(t, filepath.Join(dir, "data"))
				}
				return p
			}
			for _, b := range blocksOf(t, doc) {
				switch b.lang {
				case "yaml":
					playYAML(t, dir, doc, b)
				case "python":
					writeNamed(t, dir, doc, b, asReader(platform(), b.text))
				case "c", "cpp":
					playFirmware(t, platform(), dir, doc, b)
				case "console":
					for _, m := range makeTarget.FindAllStringSubmatch(b.text, -1) {
						if !bytes.Contains(makefile, []byte("\n"+m[1]+":")) {
							t.Errorf("%s:%d: the Makefile has no target %s", doc, b.line, m[1])
						}
					}
				case "sh":
					output = playShell(t, platform(), dir, doc, b)
				case "output":
					for want := range strings.Lines(b.text) {
						if !strings.Contains(output, strings.TrimSpace(want)) {
							t.Errorf("%s:%d: %q is not in the output:\n%s", doc, b.line, strings.TrimSpace(want), output)
						}
					}
				case "":
				default:
					t.Errorf("%s:%d: nothing runs a block marked %q", doc, b.line, b.lang)
				}
			}
		})
	}
}

// writeNamed writes the file that a block is.
func writeNamed(t *testing.T, dir, doc string, b block, text string) string {
	t.Helper()
	if b.name == "" {
		t.Fatalf("%s:%d: name the file that this is", doc, b.line)
	}
	path := filepath.Join(dir, b.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func playYAML(t *testing.T, dir, doc string, b block) {
	t.Helper()
	config := b.name == "config"
	if config {
		b.name = "config.yaml"
	}
	path := writeNamed(t, dir, doc, b, b.text)
	if config {
		if _, err := app.LoadConfig(path); err != nil {
			t.Errorf("%s:%d: %v", doc, b.line, err)
		}
	}
}

// asReader puts the addresses and the password of a platform for those that documents name.
func asReader(p *process, text string) string {
	_, mqttPort, _ := net.SplitHostPort(p.mqtt)
	return strings.NewReplacer(
		"http://127.0.0.1:8080", p.http, "127.0.0.1:5683", p.coap, "127.0.0.1:1883", p.mqtt, "-p 1883", "-p "+mqttPort,
		`"127.0.0.1", 1883`, `"127.0.0.1", `+mqttPort, "'the password that make run printed'", "'"+testPassword+"'",
	).Replace(text)
}

var (
	firmwareTopic = regexp.MustCompile(`"(v[12]/[^"]+)"`)
	firmwareValue = regexp.MustCompile(`(?:values\["|\\")(\w+)(?:"\]|\\": %\.)`) // of ArduinoJson, and of printf
	firmwarePort  = regexp.MustCompile(`(?:mqtt://[^":]+:|setServer\("[^"]+", )(\d+)`)
)

// playFirmware holds code for microcontrollers, which can't be run here, to the
// platform: it connects to MQTT's port with the token as user name, and what it
// publishes is taken, under its topics and with its names of metrics.
func playFirmware(t *testing.T, p *process, dir, doc string, b block) {
	t.Helper()
	port := strings.TrimPrefix(app.Default().MQTT.Addr, ":")
	if m := firmwarePort.FindStringSubmatch(b.text); m == nil || m[1] != port {
		t.Errorf("%s:%d: it does not connect to port %s: %q", doc, b.line, port, m)
	}
	if !strings.Contains(b.text, `"TOKEN"`) {
		t.Errorf("%s:%d: it does not show the token", doc, b.line)
	}
	var values []string
	for _, m := range firmwareValue.FindAllStringSubmatch(b.text, -1) {
		values = append(values, `"`+m[1]+`": 0`)
	}
	topics := firmwareTopic.FindAllStringSubmatch(b.text, -1)
	if len(topics) == 0 || len(values) == 0 {
		t.Fatalf("%s:%d: it publishes %d values under %d topics", doc, b.line, len(values), len(topics))
	}
	body := "{" + strings.Join(values, ", ") + "}"
	sh := block{line: b.line}
	for _, topic := range topics {
		sh.text += "mosquitto_pub -V 5 -h 127.0.0.1 -p 1883 -u \"$TOKEN\" -t " + topic[1] + " -q 1 -m '" + body + "'\n"
	}
	if said := playShell(t, p, dir, doc, sh); said != "" {
		t.Errorf("%s:%d: the platform does not take %s: %s", doc, b.line, body, said)
	}
}

// pahoPython finds a Python that has paho-mqtt: where there are several, Debian's
// package is Debian's Python's only.
func pahoPython() string {
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import paho.mqtt.client").Run() == nil {
			return python
		}
	}
	return ""
}

// playShell runs a block of commands; variables that it sets are there for the
// blocks after it, because all blocks so far are kept in one environment file.
func playShell(t *testing.T, p *process, dir, doc string, b block) string {
	t.Helper()
	missing := func(what string) {
		t.Helper()
		if os.Getenv("CI") != "" {
			t.Fatalf("%s:%d: %s is not installed", doc, b.line, what)
		}
		t.Skipf("%s is not installed", what)
	}
	for _, tool := range []string{"mosquitto_pub", "coap-client-notls", "curl"} {
		if _, err := exec.LookPath(tool); err != nil && strings.Contains(b.text, tool) {
			missing(tool)
		}
	}
	text := asReader(p, b.text)
	if strings.Contains(text, "python3 ") {
		python := pahoPython()
		if python == "" {
			missing("python3 with paho-mqtt")
		}
		text = strings.ReplaceAll(text, "python3 ", python+" ")
	}
	script := "set -eu\n[ ! -f .env ] || . ./.env\n" + text + `
for v in TOKEN CASE CITYWARDEN_PASSWORD; do [ -z "${!v:-}" ] || printf 'export %s=%q\n' "$v" "${!v}"; done > .env
`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CITYWARDEN_SERVER="+p.http)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s:%d: %v\n%s\noutput:\n%s\nthe platform said:\n%s", doc, b.line, err, text, out, p.stderr)
	}
	return string(out)
}

// startPlatform launches a platform, and stops it when the test ends.
func startPlatform(t *testing.T, data string, args ...string) *process {
	t.Helper()
	p, err := launch(t.TempDir(), data, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(os.Interrupt); err != nil {
			t.Errorf("the platform ended with %v:\n%s", err, p.stderr)
		}
	})
	return p
}
