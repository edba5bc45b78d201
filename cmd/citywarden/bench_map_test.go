package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// TestManyDevicesOnTheMap measures what `make bench-map` tells of: how long the
// console takes until the demo's numbers and lists, and its map, are there; then, with many devices
// registered by CSV and spread over the county, how large and how fast the devices' GeoJSON is, and
// how many frames a second there are while somebody drags the map and zooms it,
// while the demo goes on. Chromium draws by software (SwiftShader), and that is most of a frame: so the
// empty map stands beside each figure, in the window and in one of 480 x 320, and what a frame costs
// is told apart: of the page (its thread, and its process with the map's worker), which is the
// console's, and of the process that draws, which is the graphics card's work elsewhere.
//
// The wall times mean something on a machine that does nothing else, or under chrt -r 1.
func TestManyDevicesOnTheMap(t *testing.T) {
	devices, _ := strconv.Atoi(os.Getenv("BENCH_MAP"))
	if devices == 0 {
		t.Skip("say how many devices: BENCH_MAP=100000, or make bench-map")
	}
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "地图")
	b.drawn()
	measureReady(b)

	measureFrames(b, "demo")
	emptyMap(b)
	measureFrames(b, "demo, all layers off")

	c := clientOf(t, p)
	const atOnce = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	for from := 0; from < devices; from += atOnce {
		var csv bytes.Buffer
		csv.WriteString("id,name,model,lat,lon\n")
		for i := from; i < min(from+atOnce, devices); i++ {
			fmt.Fprintf(&csv, "many-%06d,烟感 %06d,smoke-detector,%.6f,%.6f\n", i, i, 24.08+0.09*r.Float64(), 117.57+0.1*r.Float64())
		}
		var report struct{ Created, Failed int }
		if err := c.call(t.Context(), "POST", "/devices/import", &csv, &report); err != nil || report.Failed > 0 {
			t.Fatalf("import: %+v, %v", report, err)
		}
	}
	t.Logf("%d devices imported in %v", devices, time.Since(began).Round(time.Millisecond))
	packed, plain, took := mapDevices(t, c)
	t.Logf("devices' GeoJSON: %.1f MB, %.2f MB packed, in %v", float64(plain)/1e6, float64(packed)/1e6, took.Round(time.Millisecond))

	began = time.Now()
	b.visit("/", "地图")
	b.drawn()
	t.Logf("map with %d devices drawn after %v", devices, time.Since(began).Round(time.Millisecond))
	b.screenshot("map-many")
	measureFrames(b, fmt.Sprint(devices, " devices"))
	b.do(chromedp.EmulateViewport(480, 320))
	b.visit("/", "地图")
	b.drawn()
	measureFrames(b, fmt.Sprint(devices, " devices, 480 x 320"))
	emptyMap(b)
	measureFrames(b, fmt.Sprint(devices, " devices, 480 x 320, all layers off"))
	b.calm()
}

// measureReady opens the first page five times without and with what the browser keeps of it,
// and says after how long its numbers and lists are there, and its map.
func measureReady(b *browser) {
	b.t.Helper()
	const watch = `(() => {
		const seen = window.seen = {}
		const look = () => {
			const at = Math.round(performance.now())
			if (document.querySelector('.strip b') && document.querySelector('.side') && !document.querySelector('.side .empty[role=status]')) seen.ready ??= at
			if (document.querySelector('.canvas[data-state=idle] canvas')) seen.map ??= at
		}
		new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ['data-state'] })
	})()`
	added, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, kept := range []bool{false, true} {
		var ready, drawn []int
		for range 5 {
			if !kept {
				if _, err := chromedp.Call(b.ctx, network.ClearBrowserCache, cdp.Empty{}); err != nil {
					b.t.Fatal(err)
				}
			}
			b.do(chromedp.Navigate(b.base + "/"))
			b.drawn()
			seen, err := evaluate[struct{ Ready, Map int }](b, `window.seen`)
			if err != nil || seen.Ready == 0 || seen.Map == 0 {
				b.t.Fatalf("the page was ready and its map drawn after %+v (%v)", seen, err)
			}
			ready, drawn = append(ready, seen.Ready), append(drawn, seen.Map)
		}
		slices.Sort(ready)
		slices.Sort(drawn)
		b.t.Logf("demo, files of the page kept %t: numbers and lists after %d ms (%v), map drawn after %d ms (%v)", kept, ready[2], ready, drawn[2], drawn)
	}
	if _, err := chromedp.Call(b.ctx, page.RemoveScriptToEvaluateOnNewDocument, page.RemoveScriptToEvaluateOnNewDocumentParams(added)); err != nil {
		b.t.Fatal(err)
	}
}

// emptyMap switches off every layer that the legend has.
func emptyMap(b *browser) {
	b.t.Helper()
	const js = `(() => {
		const box = document.querySelector('.legend')
		if (!box.classList.contains('open')) { box.querySelector('button').click(); return false }
		for (const x of box.querySelectorAll('input')) if (x.checked) { x.click(); return false }
		box.querySelector('button').click()
		return true
	})()`
	if !wait(30*time.Second, func() bool {
		done, err := evaluate[bool](b, js)
		return err == nil && done
	}) {
		b.t.Fatal("the legend does not switch the layers off")
	}
}

// mapDevices asks for the devices of the map as a browser does.
func mapDevices(t *testing.T, c *client) (packed, plain int, took time.Duration) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+"/map/devices", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept-Encoding", "gzip")
	began := time.Now()
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%s with encoding %q: %v", res.Status, res.Header.Get("Content-Encoding"), err)
	}
	took = time.Since(began)
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, z)
	if err != nil {
		t.Fatal(err)
	}
	return len(body), int(n), took
}

// measureFrames drags the map to and fro, and zooms it in and out by the wheel,
// for some seconds each, and says of what how long the frames took, which is the
// machine's load too, and what CPU time they took of the page's thread, which is not.
func measureFrames(b *browser, what string) {
	b.t.Helper()
	for _, way := range []string{"drag", "wheel"} {
		js := fmt.Sprintf(`(async () => {
			const way = %q
			const canvas = document.querySelector('.canvas canvas')
			const box = canvas.getBoundingClientRect()
			const x0 = box.left + box.width / 2, y0 = box.top + box.height / 2
			const mouse = (to, type, x, y, buttons) => to.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true, view: window, clientX: x, clientY: y, button: 0, buttons }))
			const frames = [], page = []
			let last
			// What the callbacks of a frame take of the page's thread, those of the map with ours.
			const ask = requestAnimationFrame
			const spent = new Map()
			window.requestAnimationFrame = (f) => ask((now) => {
				const began = performance.now()
				f(now)
				spent.set(now, (spent.get(now) ?? 0) + performance.now() - began)
			})
			if (way === 'drag') mouse(canvas, 'mousedown', x0, y0, 1)
			await new Promise((done) => {
				const began = performance.now()
				const step = (now) => {
					if (last !== undefined) frames.push(now - last)
					last = now
					const s = (now - began) / 1000
					if (s > 5) return done()
					if (way === 'drag') mouse(document, 'mousemove', x0 + 250 * Math.sin(2 * s), y0 + 150 * Math.sin(3 * s), 1)
					else canvas.dispatchEvent(new WheelEvent('wheel', { bubbles: true, cancelable: true, clientX: x0, clientY: y0, deltaY: Math.sin(1.5 * s) > 0 ? -20 : 20 }))
					requestAnimationFrame(step)
				}
				requestAnimationFrame(step)
			})
			if (way === 'drag') mouse(document, 'mouseup', x0, y0, 0)
			window.requestAnimationFrame = ask
			page.push(...spent.values())
			const at = (q, of = frames) => of.sort((a, b) => a - b)[Math.floor(q * (of.length - 1))].toFixed(0)
			const sum = frames.reduce((a, b) => a + b, 0)
			return { count: frames.length, text: (1000 * frames.length / sum).toFixed(1) + ' frames/s; a frame takes ' + at(0.5) + ' ms (median), ' + at(0.95) + ' ms (95 of 100); its callbacks ' + at(0.5, page) + ' ms (median), ' + at(0.95, page) + ' ms (95 of 100)' }
		})()`, way)
		before, rendered, drew := b.taskSeconds(), cpuOf(b.t, "renderer"), cpuOf(b.t, "gpu-process")
		got, err := chromedp.Run(b.ctx, chromedp.Evaluate[struct {
			Count int
			Text  string
		}](js, chromedp.EvalAwaitPromise))
		if err != nil {
			b.t.Fatal(err)
		}
		each := func(seconds float64) float64 { return 1000 * seconds / float64(got.Count) }
		b.t.Logf("%s, %s: %s; CPU of a frame: page's thread %.1f ms, page with worker %.1f ms, drawing %.1f ms", what, way, got.Text,
			each(b.taskSeconds()-before), each(cpuOf(b.t, "renderer")-rendered), each(cpuOf(b.t, "gpu-process")-drew))
	}
}

// taskSeconds returns the CPU time that the page's thread has taken.
func (b *browser) taskSeconds() (sum float64) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
		b.t.Fatal(err)
	}
	got, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range got.Metrics {
		if m.Name == "TaskDuration" {
			sum = m.Value
		}
	}
	return sum
}

// cpuOf returns the CPU seconds that the processes of a kind have taken which
// are ours: those of Chromium name their kind. Linux only, as what calls it.
func cpuOf(t *testing.T, kind string) (sum float64) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		line, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(line, []byte("--type="+kind)) || !descends(filepath.Base(filepath.Dir(name))) {
			continue
		}
		if f := statOf(filepath.Base(filepath.Dir(name))); len(f) > 12 {
			for _, ticks := range f[11:13] { // utime, stime
				n, _ := strconv.ParseFloat(ticks, 64)
				sum += n / 100
			}
		}
	}
	return sum
}

// statOf returns the fields of a process's stat that follow its name; none when it has ended.
func statOf(pid string) []string {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// descends reports whether a process was started by this one, or by one that was.
func descends(pid string) bool {
	for pid != "0" && pid != strconv.Itoa(os.Getpid()) {
		f := statOf(pid)
		if len(f) < 2 {
			return false
		}
		pid = f[1]
	}
	return pid != "0"
}
