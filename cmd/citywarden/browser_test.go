package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// artefacts is where screenshots go; git ignores it.
const artefacts = "../../artefacts"

// browser is a headless Chromium that remembers what it complained about.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string

	opened time.Time
	mu     sync.Mutex
	errors []string // of the page's console
	hosts  []string // that it asked besides ours
}

// launchForBrowser starts a platform of its own for the test, which is skipped
// where there is no Chromium to look at it, and under the race detector: what
// that says of a platform which is killed at the end would reach nobody.
func launchForBrowser(t *testing.T, args ...string) *process {
	t.Helper()
	if raced {
		t.Skip("the race detector does not see the pages")
	}
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed")
	}
	p, err := launch(t.TempDir(), "data", args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	return p
}

func openBrowser(t *testing.T, base, lang string) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox,
		chromedp.Flag("accept-lang", lang), chromedp.Flag("use-gl", "angle"), chromedp.Flag("use-angle", "swiftshader"),
		chromedp.Flag("enable-unsafe-swiftshader", true), chromedp.Flag("disable-gpu", false), chromedp.WindowSize(1280, 800))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() { cancel(); stop() })
	b := &browser{t: t, ctx: ctx, base: base, opened: time.Now()}
	ours, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.errors = append(b.errors, fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.URL))
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, "401") && // asking who is signed in
				!strings.HasSuffix(e.Entry.URL, "/claim") { // with the wrong secret
				b.errors = append(b.errors, e.Entry.Text+" "+e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err == nil && u.Host != "" && u.Host != ours.Host {
				b.hosts = append(b.hosts, e.Request.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 60*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.screenshot("failed")
		b.t.Fatalf("%v; the page shows:\n%s", err, b.text())
	}
}

func (b *browser) text() string {
	s, err := evaluate[string](b, `document.body.innerText`)
	if err != nil {
		return err.Error() // between two pages
	}
	return s
}

func evaluate[T any](b *browser, js string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](js))
}

// visit opens a page and waits until it shows text.
func (b *browser) visit(path, text string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
	b.see(text)
}

// see waits until the page shows text.
func (b *browser) see(text string) {
	b.t.Helper()
	if !wait(90*time.Second, func() bool { return strings.Contains(b.text(), text) }) {
		b.screenshot("failed")
		b.t.Fatalf("the page does not show %q, but:\n%s", text, b.text())
	}
}

// click clicks the first button or link that is visible and reads so: in the
// dialog that is open, else on the page, else around it.
func (b *browser) click(text string) {
	b.t.Helper()
	js := fmt.Sprintf(`(() => {
		const dialog = document.querySelector('dialog[open]')
		const find = root => {
			const all = [...(root?.querySelectorAll('button, a, [role=tab], summary') ?? [])].filter(e => e.offsetParent !== null && !e.disabled)
			return all.find(e => e.innerText.trim() === %[1]q || e.getAttribute('aria-label') === %[1]q) ?? all.find(e => e.innerText.trim().startsWith(%[1]q))
		}
		const e = dialog ? find(dialog) : find(document.querySelector('main')) ?? find(document)
		if (!e) return false
		e.click()
		return true
	})()`, text)
	if !wait(90*time.Second, func() bool {
		clicked, err := evaluate[bool](b, js)
		return err == nil && clicked
	}) {
		b.screenshot("failed")
		b.t.Fatalf("nothing to click that reads %q in:\n%s", text, b.text())
	}
}

// confirm clicks what opens a dialog, and its button of the same name.
func (b *browser) confirm(text string) {
	b.t.Helper()
	b.click(text)
	b.do(chromedp.WaitVisible(chromedp.CSS("dialog[open]")))
	b.click(text)
}

func (b *browser) screenshot(name string) {
	b.t.Helper()
	b.t.Logf("%s %s", time.Since(b.opened).Round(time.Second), name)
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Errorf("screenshot %s: %v", name, err)
		return
	}
	if err := os.MkdirAll(artefacts, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(artefacts, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

var userField = chromedp.CSS("input[name=username]")

func (b *browser) signIn(user, password, go_, then string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base+"/"), chromedp.WaitVisible(userField),
		chromedp.SendKeys(userField, user), chromedp.SendKeys(chromedp.CSS("input[name=password]"), password))
	b.click(go_)
	b.see(then)
}

// TestConsoleInChromium is an operator's first minutes with the demo: sign in,
// see the fire, read why, acknowledge, file and dispatch the case.
func TestConsoleInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	dispatched := 0
	b := openBrowser(t, p.http, "zh-CN")
	b.do(chromedp.Navigate(b.base+"/"), chromedp.WaitVisible(userField))
	b.screenshot("sign-in")
	b.signIn("admin", testPassword, "登录", "地图")
	b.visit("/alarms", "E0595")
	b.screenshot("alarms")
	b.click("为什么？")
	b.see("dB/m")
	b.screenshot("why")
	b.visit("/alarms", "E0595")
	b.click("确认")
	b.see("已确认")
	b.visit("/cases", "E0595")
	b.screenshot("cases")
	b.click("防火分区烟雾")
	b.see("消除隐患") // the closing condition
	b.screenshot("case")
	for _, action := range []string{"立案", "派遣"} {
		b.confirm(action)
		b.do(chromedp.WaitNotPresent(chromedp.CSS("dialog[open]")))
	}
	b.see("消防救援大队")
	b.screenshot("case-dispatched")
	b.visit("/devices", "sd-mall-301")
	b.screenshot("devices")
	b.visit("/devices/sd-mall-301", "烟雾减光率")
	b.do(chromedp.Click(chromedp.CSS(".messages summary"))) // the first one that comes in
	b.see("0000  7b 22")                                    // its bytes
	b.fair("a device with a message")
	b.screenshot("device-message")
	b.screenshot("device")
	// A new device's first message appears on its page without a reload.
	token := addDevices(t, p, 1)[0]
	b.visit("/devices/d0", "d0")
	if err := publish(p.mqtt, token, `{"smoke": 0.073}`); err != nil {
		t.Fatal(err)
	}
	b.see("0.073 dB/m")
	if err := publish(p.mqtt, token, `{"smoke": `); err != nil {
		t.Fatal(err)
	}
	b.see("10 字节") // among what could not be used
	b.screenshot("new-device")
	b.fail(p, token)
	b.administer("d0")
	b.visit("/rules", "fire.zone-smoke")
	b.screenshot("rules")
	b.visit("/", "需要处理")
	b.drawn()
	b.screenshot("map")
	b.fitPhone([][2]string{{"/", "地图"}, {"/alarms", "E0595"}, {"/cases", "E0595"}, {"/devices", "em-gov"}})

	c := clientOf(t, p)
	if err := list(t.Context(), c, "/cases", url.Values{"stage": {"pending_handling"}}, func(k citywarden.Case) error {
		if k.Department != "消防救援大队" || k.Deadline.IsZero() {
			t.Errorf("the dispatched case: %+v", k)
		}
		dispatched++
		return nil
	}); err != nil || dispatched != 1 {
		t.Errorf("%d cases were dispatched (%v), want the one that was clicked", dispatched, err)
	}

	en := openBrowser(t, p.http, "en-US")
	en.signIn("admin", testPassword, "Sign in", "Map")
	en.screenshot("en-map")
	for _, page := range []struct{ path, text, name string }{{"/alarms", "Smoke in a fire zone", "alarms"}, {"/cases", "Smoke in a fire zone", "cases"}, {"/devices", "Smoke detector", "devices"}} {
		en.visit(page.path, page.text)
		en.screenshot("en-" + page.name)
	}
	b.calm()
	en.calm()
}

// fail sends d0 a command that is larger than it takes: its page says so.
func (b *browser) fail(p *process, token string) {
	b.t.Helper()
	small, err := net.Dial("tcp", p.mqtt)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = small.Close() })
	var hello bytes.Buffer
	connect := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: 5, Properties: packets.Properties{MaximumPacketSize: 64}}
	connect.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), Clean: true, Keepalive: 60, ClientIdentifier: "d0", UsernameFlag: true, Username: []byte(token)}
	subscribe := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 5, PacketID: 1,
		Filters: packets.Subscriptions{{Filter: "v1/devices/me/rpc/request/+", Qos: 1}}}
	if err := errors.Join(connect.ConnectEncode(&hello), subscribe.SubscribeEncode(&hello)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := small.Write(hello.Bytes()); err != nil {
		b.t.Fatal(err)
	}
	b.click("下发命令")
	b.choose("dialog select", "self_test")
	b.fair("the dialog of a command")
	b.click("下发")
	b.see("失败\n")
	b.see("命令的报文超出设备在 CONNECT 中声明的上限（64 字节）。") // that the device takes
	b.screenshot("command-failed")
}

// administer gives a device another credential and firmware, its model a key, and
// looks for its broken message in the ledger and among the dead letters.
func (b *browser) administer(id string) {
	b.t.Helper()
	b.click("换发新凭据")
	b.choose("dialog select", "mqtt")
	b.choose("select:has(option[value='24h'])", "24h")
	b.fair("the dialog of a credential")
	b.click("签发")
	b.see("用户名 " + id)
	b.screenshot("credential")
	b.click("完成")
	b.see("正被替换")
	b.visit("/ledger?device="+id, "账目相符")
	b.see("拒收 1")
	b.fairInEachLook("/ledger")
	b.screenshot("ledger")
	b.click("查看这些消息")
	b.see("10 字节")
	b.fair("/deadletters")
	b.confirm("重新导入")
	b.see("1 条仍无法使用")
	b.screenshot("dead-letters")
	b.visit("/firmware", "添加固件")
	b.click("添加固件")
	b.choose("dialog select", "smoke-detector")
	b.fill("dialog label:nth-of-type(2) input", "smoke")
	b.fill("dialog label:nth-of-type(3) input", "1.1")
	b.do(chromedp.SetUploadFiles(chromedp.CSS("dialog input[type=file]"), []string{grayPhoto(b.t)}))
	b.click("添加固件")
	b.see("没有指定给任何设备")
	b.click("指定")
	b.fill("dialog input", id)
	b.fair("the dialog of a firmware")
	b.click("指定")
	b.see("给 设备 " + id)
	b.see("1\n未开始")
	b.screenshot("firmware")
	b.visit("/provisioning", "没有型号允许自注册")
	b.confirm("新密钥")
	b.see("provisionDeviceSecret")
	b.click("完成")
	b.see("provisionDeviceKey")
	b.fair("/provisioning")
	b.visit("/uplinks", "没有配置外部连接")
	b.fair("/uplinks")
	b.visit("/devices/"+id, "smoke 1.1")
	b.confirm("禁用")
	b.see("已禁用：其消息会被拒收")
	b.fairInEachLook("a device")
	b.screenshot("device-disabled")
}

// everyLook is the theme and the contrast of every look but the first, light.
var everyLook = [][2]string{{"dark", ""}, {"light", "more"}, {"dark", "more"}}

// fairInEachLook is fair, and looks at the contrast in dark and high contrast too.
func (b *browser) fairInEachLook(page string) {
	b.t.Helper()
	b.fairInLooks(page, everyLook...)
}

// fairInLooks is fair, and looks at the contrast in some looks.
func (b *browser) fairInLooks(page string, looks ...[2]string) {
	b.t.Helper()
	b.fair(page)
	for _, look := range looks {
		if _, err := evaluate[bool](b, fmt.Sprintf(`Object.assign(document.documentElement.dataset, { theme: %q, contrast: %q }) && true`, look[0], look[1])); err != nil {
			b.t.Fatal(err)
		}
		b.axe(fmt.Sprint(page, " in ", look), "color-contrast")
	}
}

// calm fails the test when a page complained or asked another host.
func (b *browser) calm() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.errors) > 0 || len(b.hosts) > 0 {
		b.t.Errorf("the page complained: %q; it asked other hosts: %q", b.errors, b.hosts)
	}
}

// fair fails the test when axe finds something serious on the page. axe is there
// when the console's packages are installed.
func (b *browser) fair(page string) {
	b.t.Helper()
	b.axe(page, "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
}

// axe looks at the page with some rules of axe, by their names or tags.
func (b *browser) axe(page string, rules ...string) {
	b.t.Helper()
	axe, err := os.ReadFile("../../dashboards/console/web/node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Logf("axe does not look at %s: %v", page, err)
		return
	}
	run := fmt.Sprintf(`Promise.all(document.getAnimations().map(a => a.finished)).then(() => axe.run(document, { runOnly: '%s'.split(' ') })).then(r =>
		r.violations.map(v => v.impact + ' ' + v.id + ' ' + v.nodes.map(n => n.target.join(' ')).join(', ')).join('\n'))`, strings.Join(rules, " "))
	ctx, cancel := context.WithTimeout(b.ctx, 60*time.Second)
	defer cancel()
	loaded, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`'axe' in window`))
	if err != nil {
		b.t.Fatal(err)
	}
	if !loaded {
		run = string(axe) + ";\n" + run
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](run, chromedp.EvalAwaitPromise))
	if err != nil || found != "" {
		b.t.Errorf("axe on %s: %s %v", page, found, err)
	}
}

// edit puts one text in the place of another in a field, as a person does who types.
func (b *browser) edit(selector, before, after string) {
	b.t.Helper()
	js := fmt.Sprintf(`(() => {
		const e = document.querySelector(%q)
		if (!e?.value.includes(%[2]q)) return false
		e.value = e.value.replace(%[2]q, %[3]q)
		e.dispatchEvent(new Event('input', { bubbles: true }))
		return true
	})()`, selector, before, after)
	if !wait(90*time.Second, func() bool {
		edited, err := evaluate[bool](b, js)
		return err == nil && edited
	}) {
		b.screenshot("failed")
		b.t.Fatalf("no field %s with %q in:\n%s", selector, before, b.text())
	}
}

// TestAlarmAndRulePagesInChromium is what operators and rule engineers do beyond
// the first minutes: comment, assign and take out of service, look at the alarm
// load, test, try and backtest a rule, and ask why there was no alarm.
func TestAlarmAndRulePagesInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "地图")

	b.visit("/alarms?q=mall-3f", "E0595")
	b.click("为什么？")
	b.see("dB/m")
	b.do(chromedp.SendKeys(chromedp.CSS(".comment textarea"), "已电话核实，保安前往"))
	b.click("写入备注")
	b.see("已电话核实，保安前往\n") // a step of the history, not the field
	b.click("指派")
	b.click("我来负责")
	b.see("admin 负责")
	b.click("停用")
	b.do(chromedp.SendKeys(chromedp.CSS("dialog dialog textarea"), "更换探测器"), chromedp.Click(chromedp.CSS("dialog dialog button[type=submit]")))
	b.see("“更换探测器”")
	b.screenshot("alarm-orders")
	b.visit("/alarms?view=out", "更换探测器")
	b.screenshot("alarms-out-of-service")
	b.click("恢复启用")
	b.see("没有停用的告警")
	b.visit("/devices/sd-mall-102", "下发命令") // one without an alarm
	b.click("停用")
	b.fair("the dialog to take a device out of service")
	b.fill("dialog textarea", "消防演练")
	b.click("停用")
	b.see("“消防演练”")
	b.click("下发命令")
	b.do(chromedp.WaitVisible(chromedp.CSS("dialog[open]"))) // else the next click finds the button before
	b.fair("the dialog of a command")
	b.click("下发")
	b.see("有效期至")
	b.screenshot("device-out-of-service")
	b.visit("/alarms?view=out", "“消防演练”")
	b.click("恢复启用")
	b.see("没有停用的告警")

	b.visit("/alarms/load", "每人每 10 分钟告警数")
	b.screenshot("alarm-load")
	b.click("防火分区烟雾")
	b.see("发生于")
	b.see("mall-3f")

	b.visit("/rules", "24 小时内发生")
	b.screenshot("rules-counts")
	b.visit("/rules/fire.zone-smoke", "所在文件的测试")
	b.click("运行测试")
	b.see("全部通过")
	b.click("试改与回测")
	b.edit(".editor textarea", "smoke >", "smoek >")
	b.click("检查并测试")
	b.see(`是指 "smoke" 吗`)
	b.screenshot("rule-mistake")
	b.click("恢复为运行中的原文")
	b.edit(".editor textarea", "for: 10s", "for: 20s")
	b.click("开始回测")
	b.see("告警总时长")
	b.see("两者都有")
	if ok, err := evaluate[bool](b, `/\d{4}\/\d\d\/\d\d [\d:]+ 至 \d{4}\/\d\d\/\d\d [\d:]+ 的/.test(document.body.innerText)`); err != nil || !ok {
		t.Errorf("the period of the backtest has no date at both ends (%v) in:\n%s", err, b.text())
	}
	b.screenshot("rule-backtest")

	at := time.Now().UTC().Format(time.RFC3339)
	b.visit("/rules/fire.zone-smoke?"+url.Values{"tab": {"whynot"}, "device": {"sd-mall-101"}, "at": {at}}.Encode(), "条件不成立")
	b.see("比较了什么")
	b.screenshot("why-not")
	b.visit("/devices/sd-mall-101?"+url.Values{"rule": {"fire.zone-smoke"}, "at": {at}}.Encode(), "条件不成立")

	b.fitPhone([][2]string{{"/alarms/load", "优先级分布"}, {"/rules", "fire.zone-smoke"}, {"/rules/fire.zone-smoke?tab=try", "开始回测"}})
	b.calm()
}

// TestDesksInChromium is a case's way over the desks: entered by the acceptor,
// filed, dispatched with the keyboard alone, handled with a photo, seen by
// supervision.
func TestDesksInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "地图")

	enter := func(title string) {
		b.visit("/intake/new", "上报人")
		b.fill("input[maxlength='200']", title)
		b.fill("input[list=classes]", "event/0506")
		b.fill("input[placeholder='24.117']", "24.117")
		b.fill("input[placeholder='117.613']", "117.613")
	}
	enter("东门路口积水")
	b.fair("/intake/new")
	b.screenshot("entry")
	b.click("登记案卷")
	b.see("办理经过") // beside the list; the entry shows the filing condition, too
	b.fair("/intake")
	b.screenshot("intake")
	enter("东门路口又积水了")
	b.see("位置相近的同类案卷：1 件")
	b.screenshot("entry-near")

	b.visit("/intake", "东门路口积水")
	b.click("东门路口积水")
	b.click("立案")
	b.do(chromedp.WaitVisible(chromedp.CSS("dialog[open]")))
	b.click("立案")
	b.do(chromedp.WaitNotPresent(chromedp.CSS("dialog[open]")))

	b.visit("/dispatch", "东门路口积水")
	b.do(chromedp.Focus(chromedp.CSS(".pick[tabindex='0']")), chromedp.KeyEvent(kb.Enter)) // chooses
	b.see("办理经过")
	b.fair("/dispatch")
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("dialog[open]")), chromedp.KeyEvent(kb.Enter), // with the department of the class
		chromedp.WaitNotPresent(chromedp.CSS("dialog[open]")))
	b.visit("/handling", "东门路口积水")
	b.click("东门路口积水")
	b.see("还没有照片")
	b.do(chromedp.SetUploadFiles(chromedp.CSS(".panel input[type=file]"), []string{grayPhoto(t)}), chromedp.WaitVisible(chromedp.CSS(".photos img")))
	b.screenshot("handling")
	for _, step := range []struct{ action, tells, note string }{
		{"申请延期", "最多延期两次，已批准 0 次", "配件明天到货"},
		{"同意延期", "已批准 0 次", ""},
		{"督办", "处置时限不变", "请今日内处置"},
	} {
		b.click(step.action)
		b.see(step.tells)
		if step.note != "" {
			b.fill("dialog textarea", step.note)
		}
		b.fair("the dialog " + step.action)
		b.click(step.action)
		b.do(chromedp.WaitNotPresent(chromedp.CSS("dialog[open]")))
	}
	b.see("督办、延期 1 次")
	b.visit("/supervision", "按部门")
	b.fair("/supervision")
	b.screenshot("supervision")

	// A case about a component of the city: those of its class nearby are offered.
	c := clientOf(t, p)
	var covers struct{ Items []citywarden.Component }
	if err := c.call(t.Context(), "GET", "/components?class=component/0101&limit=1", nil, &covers); err != nil || len(covers.Items) == 0 {
		t.Fatalf("components of the demo: %v, %v", covers, err)
	}
	cover := covers.Items[0]
	b.visit("/intake/new", "上报人")
	b.fill("input[maxlength='200']", "井盖松动")
	b.fill("input[list=classes]", string(cover.Class))
	b.fill("input[placeholder='24.117']", fmt.Sprintf("%.6f", cover.Location.Lat))
	b.fill("input[placeholder='117.613']", fmt.Sprintf("%.6f", cover.Location.Lon))
	b.choose(fmt.Sprintf("select:has(option[value='%s'])", cover.ID), string(cover.ID))
	b.screenshot("entry-component")
	b.click("登记案卷")
	b.see("办理经过")
	var about struct{ Items []citywarden.Case }
	if err := c.call(t.Context(), "GET", "/cases?component="+string(cover.ID), nil, &about); err != nil || len(about.Items) != 1 {
		t.Fatalf("cases about %s: %v, %v", cover.ID, about, err)
	}
	b.visit("/cases/"+string(about.Items[0].ID), string(cover.ID))
	b.screenshot("case-component")
	b.click(cover.Name)
	b.see("养护单位") // on the map
	b.see("井盖松动")
	b.drawn()
	b.screenshot("map-component")
	b.fitPhone([][2]string{{"/intake", "受理"}, {"/intake/new", "上报人"}, {"/dispatch", "派遣"}, {"/handling", "东门路口积水"}, {"/tasks", "没有派给您"}, {"/supervision", "督办"}})
	b.calm()
}

// TestCitizensPageInChromium is a citizen with a phone: photo, class, a tap on
// the map, and how far it is once somebody filed it. An app opens the page with
// the place in its own coordinates.
func TestCitizensPageInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.phone()
	b.visit("/report", "随手拍")
	b.fair("/report")
	b.click("提交")
	b.see("请选择问题类别")
	b.choose("form select", "event/05")
	b.choose("label + label + label select", "event/0506")
	b.fill("textarea", "东门路口积水很深")
	b.click("提交")
	b.see("请提供位置")
	b.do(chromedp.SetUploadFiles(chromedp.CSS("input[type=file]"), []string{grayPhoto(t)}), chromedp.WaitVisible(chromedp.CSS(".photos img")))
	b.click("在地图上指出")
	b.do(chromedp.WaitVisible(chromedp.CSS("[data-state=idle] canvas")), chromedp.Click(chromedp.CSS(".canvas")))
	b.see("地图上的位置")
	b.screenshot("report")
	b.click("提交")
	b.see("已收到，谢谢")
	b.see("待核实立案")
	b.fair("/report when it was sent")
	b.screenshot("report-sent")

	c := clientOf(t, p)
	newest := func(n int) (taken citywarden.Case) {
		t.Helper()
		seen := 0
		if err := list(t.Context(), c, "/cases", url.Values{"class": {"event/0506"}}, func(k citywarden.Case) error {
			if seen++; k.ID > taken.ID {
				taken = k
			}
			return nil
		}); err != nil || seen != n || taken.Location == nil || taken.Source != citywarden.SourceCitizen {
			t.Fatalf("%d cases of citizens (%v), want %d; %+v", seen, err, n, taken)
		}
		return taken
	}
	first := newest(1)
	for _, action := range []string{"register", "file"} {
		if err := c.call(t.Context(), "POST", "/cases/"+string(first.ID)+"/actions/"+action, map[string]any{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.click("刷新")
	b.see("已立案，处理中")

	// The same phone on another day, sent here by an app.
	at := citywarden.Point{Lat: 24.117, Lon: 117.613}
	shifted := citywarden.GCJ02.FromWGS84(at)
	b.visit("/report?"+url.Values{"lat": {fmt.Sprint(shifted.Lat)}, "lon": {fmt.Sprint(shifted.Lon)}, "crs": {"GCJ-02"}}.Encode(), "应用给出的位置")
	b.see(string(first.ID))
	b.choose("form select", "event/05")
	b.choose("label + label + label select", "event/0506")
	b.fill("textarea", "又积水了")
	b.click("提交")
	b.see("已收到，谢谢")
	if got := *newest(2).Location; got.Distance(at) > 1 {
		t.Errorf("the place of an app in GCJ-02 became %v, want %v", got, at)
	}

	// Which of the manhole covers near the place it is.
	var covers struct{ Items []citywarden.Component }
	if err := c.call(t.Context(), "GET", "/components?class=component/0101&limit=1", nil, &covers); err != nil || len(covers.Items) == 0 {
		t.Fatalf("components of the demo: %v, %v", covers, err)
	}
	cover := covers.Items[0]
	b.visit("/report?"+url.Values{"lat": {fmt.Sprint(cover.Location.Lat)}, "lon": {fmt.Sprint(cover.Location.Lon)}}.Encode(), "应用给出的位置")
	b.choose("form select", "component/01")
	b.choose("label + label + label select", string(cover.Class))
	b.choose(fmt.Sprintf("select:has(option[value='%s'])", cover.ID), string(cover.ID))
	b.fill("textarea", "井盖松动")
	b.fair("/report about a component")
	b.screenshot("report-component")
	b.click("提交")
	b.see("已收到，谢谢")
	var about struct{ Items []citywarden.Case }
	if err := c.call(t.Context(), "GET", "/cases?component="+string(cover.ID), nil, &about); err != nil || len(about.Items) != 1 {
		t.Errorf("cases about %s: %v, %v", cover.ID, about, err)
	}
	b.calm()
}

// TestOfficePagesInChromium is what is done behind the desks: the month is
// evaluated, down to the cases behind a figure; somebody gets an account, another
// role and a password, and the audit shows it.
func TestOfficePagesInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "地图")
	b.visit("/cases", "E0595")

	b.visit("/evaluation", "物联感知上报数")
	b.see("分母：有效上报数")
	b.fair("/evaluation")
	b.screenshot("evaluation")
	b.do(chromedp.Click(chromedp.CSS("button[aria-label*='物联感知上报数']")))
	b.see("E0595")
	b.fair("/evaluation with the cases of a figure")
	b.click("关闭")
	b.click("绥安镇") // its villages
	b.see("仅 350623100 之内")
	b.see("龙湖社区")
	b.click("岗位")
	b.see("网格监督员")
	b.click("统计口径")
	b.see("综合得分的权重")
	if csv, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`fetch([...document.querySelectorAll('a[download]')].at(-1).href).then(r => r.text())`, chromedp.EvalAwaitPromise)); err != nil || !strings.Contains(csv, "网格监督员,") {
		t.Errorf("the table is %.100q (%v)", csv, err)
	}
	b.visit("/users", "消防 吴强")
	b.click("添加用户")
	b.fill("dialog input[maxlength='64']", "lin")
	b.fill("dialog input[maxlength='100']", "林静")
	b.fill("dialog input[type=password]", "a good one")
	b.fair("/users when one is added")
	b.click("添加用户")
	b.see("林静")
	b.click("林静")
	b.choose("dialog select", "department")
	b.fill("dialog input[list]", "市政处")
	b.click("保存")
	b.see("市政处")
	b.fill("dialog input[type=password]", "a better one")
	b.click("重置密码")
	b.see("密码已重置")
	b.fair("/users with one of them")
	b.screenshot("user")
	b.click("停用")
	b.see("已停用 lin")
	b.click("启用")
	b.see("已启用 lin")
	b.click("该用户的操作记录")
	b.see("没有这样的记录") // nothing was done by lin
	b.visit("/audit?target=/api/v1/users*", "修改用户")
	b.fair("/audit")
	b.click("变更 2 项")
	b.see("department\t–\t市政处")
	b.screenshot("audit")
	// A time in the address that is none is left out.
	b.visit("/audit?from=garbage", "清除筛选")
	b.visit("/rules/fire.zone-smoke?tab=whynot&at=garbage", "规则为什么没有告警")
	b.visit("/users?tab=apps", "demo")
	b.fill("input[maxlength='64']", "wechat")
	b.click("签发密钥")
	b.see("密钥只显示这一次")
	b.fair("/users?tab=apps")

	b.fitPhone([][2]string{{"/users", "消防 吴强"}, {"/users?user=lin", "重置密码"}, {"/audit", "登录"}, {"/evaluation?by=post", "网格监督员"}, {"/evaluation?period=own&from=2026-01-01", "起"}})
	b.calm()
}

// TestCountyPagesInChromium is what is kept about the county: components and unit
// grids come from files, a site has limits for its devices, a device gets another
// name and place, and somebody looks who was told of what.
func TestCountyPagesInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "地图")

	file := func(name, text string) []string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{path}
	}
	give := func(path []string) {
		b.do(chromedp.WaitVisible(chromedp.CSS("dialog input[type=file]")), chromedp.SetUploadFiles(chromedp.CSS("dialog input[type=file]"), path))
	}
	b.visit("/components", "供水公司")
	b.click("导入")
	give(file("c.csv", "id,lat,lon,name,maintainer\n3506230101990001,24.117,117.613,东门井盖,市政处\n3506230101990002,99,117.6,,\n"))
	b.do(chromedp.Click(chromedp.CSS("dialog input[type=checkbox]")))
	b.click("检查")
	b.see("尚未导入。导入后将是：新增 1，修改 0，相同 0，失败 1。")
	b.do(chromedp.Click(chromedp.CSS("dialog input[type=checkbox]")))
	b.click("导入")
	b.do(chromedp.WaitNotPresent(chromedp.CSS("dialog form")))
	b.see("纬度为 -90 至 90 度")
	b.fair("the report of an import")
	b.click("关闭")
	b.visit("/components?q=3506230101990001", "东门井盖")
	b.click("修改")
	b.choose("dialog select", "damaged")
	b.fair("the dialog of a component")
	b.click("保存")
	b.see("已保存 东门井盖")
	b.visit("/components?state=damaged&department=市政处", "东门井盖")
	b.screenshot("components")
	b.click("删除")
	b.click("删除部件")
	b.see("没有符合筛选条件的部件")

	b.pages(give, file)

	b.visit("/grids", "龙湖社区")
	b.click("导入单元网格")
	give(file("g.json", `{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"code":"350623100009001","town":"绥安镇"},
		"geometry":{"type":"Polygon","coordinates":[[[117.70,24.2],[117.701,24.2],[117.701,24.201],[117.70,24.201],[117.70,24.2]]]}}]}`))
	b.click("导入")
	b.see("网格 1 个：新增 1")
	b.click("关闭")
	b.see("350623100009")
	b.click("添加责任网格")
	b.fill("dialog input", "east")
	b.choose("dialog select", "wangge2")
	b.fill("dialog textarea", "350623100009001")
	b.fair("the dialog of a responsibility grid")
	b.click("保存")
	b.see("east · wangge2")
	b.screenshot("grids")

	b.visit("/sites", "还没有单位")
	b.click("添加单位")
	b.fill("dialog input", "mall")
	b.fill("dialog label:nth-of-type(2) input", "龙湖广场")
	b.choose("dialog select", "smoke_limit")
	b.fill("dialog .pair input", "0.2")
	b.fair("the dialog of a site")
	b.click("保存")
	b.see("烟雾报警阈值 0.2 dB/m")
	b.screenshot("sites")

	b.claim(p)

	// What the device had of its own goes; what its site says holds.
	b.visit("/devices/sd-mall-301", "烟雾减光率")
	b.click("修改")
	b.edit("dialog input[maxlength='200']", "龙湖广场3层1号烟感", "龙湖广场 301 烟感")
	b.edit("dialog input[placeholder*='0.2']", "0.12", "")
	b.edit("dialog input[placeholder='24.117']", "24.1132787", "24.1133")
	b.fair("the dialog of a device")
	b.screenshot("device-edit")
	b.click("保存")
	b.see("已保存 龙湖广场 301 烟感")
	b.see("0.2 dB/m\n所在单位设定")
	b.screenshot("device-attributes")
	c := clientOf(t, p)
	var d citywarden.DeviceView
	if err := c.call(t.Context(), "GET", "/devices/sd-mall-301", nil, &d); err != nil || d.Attributes["zone"] != "mall-3f" || d.Location.Lat != 24.1133 || d.Model != "smoke-detector" {
		t.Errorf("the device became %+v (%v)", d, err)
	}
	b.visit("/notices", "防火分区烟雾")
	b.fair("/notices")
	b.visit("/notices?tab=receivers", "没有接收人")
	b.fitPhone([][2]string{{"/components", "部件"}, {"/grids", "龙湖社区"}, {"/sites", "龙湖广场"}, {"/notices", "通知"}})
	b.calm()
}

// pages imports more components than a list shows at once, and asks for the rest of them.
func (b *browser) pages(give func([]string), file func(name, text string) []string) {
	b.t.Helper()
	var csv strings.Builder
	csv.WriteString("id,lat,lon,name,maintainer\n")
	for i := range 210 {
		fmt.Fprintf(&csv, "35062301%08d,24.117,117.613,长列表井盖 %03d,市政处\n", 2000000+i, i)
	}
	b.visit("/components", "供水公司")
	b.click("导入")
	give(file("many.csv", csv.String()))
	b.click("导入")
	b.see("新增 210")
	b.click("关闭")
	b.visit("/components?q=长列表", "已显示前 200 条。")
	// What is there stays when the rest can't be had, and that is said.
	if _, err := evaluate[bool](b, `(() => { window.before = fetch; window.fetch = () => Promise.reject(new TypeError('no network')); return true })()`); err != nil {
		b.t.Fatal(err)
	}
	b.click("显示更多")
	b.see("平台没有应答")
	if n := b.count("tbody tr"); n != 200 {
		b.t.Errorf("%d of 200 components are shown after the next ones could not be had", n)
	}
	if _, err := evaluate[bool](b, `(() => { window.fetch = window.before; return true })()`); err != nil {
		b.t.Fatal(err)
	}
	b.click("重试")
	b.see("共 210 条")
	b.see("长列表井盖 209")
	b.choose("select[aria-label='状态']", "intact")
	b.see("已显示前 200 条。") // another filter begins anew
	b.click("清除筛选")
	b.see("供水公司")
}

// count is how many elements of the page fit a selector.
func (b *browser) count(selector string) int {
	b.t.Helper()
	n, err := evaluate[int](b, fmt.Sprintf("document.querySelectorAll(%q).length", selector))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// claim claims a device on a phone: with a wrong secret first, where the phone is.
func (b *browser) claim(p *process) {
	b.t.Helper()
	token := addDevices(b.t, p, 1)[0]
	res, err := http.Post(p.http+"/api/v1/"+token+"/claim", "application/json", strings.NewReader(`{"secretKey": "k7-Qm2-vX9", "durationMs": 600000}`))
	if err != nil || res.StatusCode != http.StatusOK {
		b.t.Fatalf("announce that d0 may be claimed: %v, %v", res, err)
	}
	_ = res.Body.Close()
	b.phone()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, cdpbrowser.SetPermission, cdpbrowser.SetPermissionParams{
			Permission: &cdpbrowser.PermissionDescriptor{Name: "geolocation"}, Setting: cdpbrowser.PermissionSettingGranted, Origin: p.http,
		}); err != nil {
			return err
		}
		lat, lon, accuracy := 24.1133, 117.6171, 7.0
		_, err := cdp.Call(ctx, t, emulation.SetGeolocationOverride, emulation.SetGeolocationOverrideParams{Latitude: &lat, Longitude: &lon, Accuracy: &accuracy})
		return err
	}))
	b.visit("/devices/d0", "可认领至")
	b.click("认领设备")
	b.see("所附部件（选填）")
	b.fill("form label:nth-of-type(2) input", "k7-Qm2")
	b.fill("form label:nth-of-type(3) input", "南门 1 号烟感")
	b.choose("form select", "mall")
	b.click("用我的位置")
	b.see("精确到 ±7 米")
	b.fair("/claim")
	b.screenshot("narrow-claim")
	// A position that comes after the place was typed does not overwrite it, and is not said to be exact.
	if ok, err := evaluate[bool](b, `(() => {
		const g = navigator.geolocation, ask = g.getCurrentPosition.bind(g)
		g.getCurrentPosition = (ok, ...more) => ask((p) => { window.arrive = () => { ok(p); g.getCurrentPosition = ask } }, ...more)
		return true
	})()`); err != nil || !ok {
		b.t.Fatal(err)
	}
	b.click("用我的位置")
	b.edit("form input[placeholder='24.117']", "24.113300", "24.1140")
	if !wait(10*time.Second, func() bool {
		came, err := evaluate[bool](b, `(() => { window.arrive?.(); return window.arrive !== undefined })()`)
		return err == nil && came
	}) {
		b.t.Fatal("the phone said no position")
	}
	if place := b.placed(); place != "24.1140 117.617100" || strings.Contains(b.text(), "精确到") {
		b.t.Errorf("the phone's position came late: the form has %s and reads\n%s", place, b.text())
	}
	b.click("用我的位置")
	b.see("精确到 ±7 米")
	b.do(chromedp.Click(chromedp.CSS("form button[type=submit]")))
	b.see("未认领：密语与设备 d0 所示的不符。")
	b.fill("form label:nth-of-type(2) input", "-vX9")
	b.do(chromedp.Click(chromedp.CSS("form button[type=submit]")))
	b.see("已认领 南门 1 号烟感。")
	b.screenshot("narrow-claimed")
	// The next one is elsewhere; what is said of it, is said of it alone.
	if place := b.placed(); place != " " || strings.Contains(b.text(), "精确到") {
		b.t.Errorf("for the next device the form has %s and reads\n%s", place, b.text())
	}
	b.fill("form label:nth-of-type(1) input", "d9")
	b.do(chromedp.Click(chromedp.CSS("form button[type=submit]")))
	b.see("没有设备 d9")
	if strings.Contains(b.text(), "查看设备") {
		b.t.Errorf("beside what failed still stands what went before:\n%s", b.text())
	}
	c := clientOf(b.t, p)
	var d citywarden.DeviceView
	if err := c.call(b.t.Context(), "GET", "/devices/d0", nil, &d); err != nil || d.Name != "南门 1 号烟感" || d.Attributes["site"] != "mall" ||
		d.Location == nil || d.Location.Lat != 24.1133 || d.Location.Lon != 117.6171 {
		b.t.Errorf("the claimed device is %+v (%v)", d, err)
	}
	b.do(chromedp.EmulateViewport(1280, 800))
}

// placed returns the latitude and longitude that the form has.
func (b *browser) placed() string {
	b.t.Helper()
	s, err := evaluate[string](b, `[...document.querySelectorAll('form .pair input')].map((x) => x.value).join(' ')`)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// TestKeyboardInChromium is an operator without a mouse: signs in, skips the
// navigation, reads why, acknowledges, files and dispatches the case, and uses the menu. What
// has the focus can be seen at every step.
func TestKeyboardInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.do(chromedp.Navigate(b.base+"/"), chromedp.WaitVisible(userField))
	b.focused("用户名") // at once
	b.press("admin")
	b.tabTo("密码")
	b.press(testPassword, kb.Enter)
	b.see("地图")

	b.visit("/alarms", "E0595")
	b.press(kb.Tab)
	b.focused("跳到正文")
	b.press(kb.Enter)
	b.tabTo("为什么？") // from the beginning of the page, not of the navigation
	b.press(kb.Enter)
	b.dialogs(1, "Enter on 为什么？")
	b.see("dB/m")
	b.tabTo("指派")
	b.press(kb.Enter)
	b.dialogs(2, "Enter on 指派")
	b.press(kb.Escape)
	b.dialogs(1, "Escape in 指派")
	b.focused("指派")
	b.press(kb.Escape)
	b.dialogs(0, "Escape in 为什么？")
	b.focused("为什么？")
	b.tabTo("确认")
	b.press(kb.Enter)
	b.see("已确认")
	b.tabTo("E0595") // its case
	b.press(kb.Enter)
	b.see("办理经过")
	for _, step := range []struct{ action, stage string }{{"立案", "待派遣"}, {"派遣", "待接单"}} {
		b.tabTo(step.action)
		b.press(kb.Enter)
		b.dialogs(1, "Enter on "+step.action)
		b.tabTo(step.action) // the button at the end of the dialog
		b.focusesAfterDialog(".crumb a")
		b.press(kb.Enter)
		b.dialogs(0, "Enter on the "+step.action+" of the dialog")
		b.stage(step.stage)
		b.focused("案卷")
	}
	b.see("消防救援大队")

	b.tabTo("语言、显示、账号")
	b.press(kb.Enter)
	b.do(chromedp.WaitVisible(chromedp.CSS(".menu")))
	b.press(kb.ArrowDown)
	b.focused("中文")
	b.press(kb.ArrowDown)
	b.focused("English")
	b.press(kb.Enter)
	b.see("Sign out")
	b.press(kb.End)
	b.focused("Sign out")
	b.press(kb.ArrowDown)
	b.focused("Language, display, account")
	b.press(kb.ArrowUp, kb.Escape)
	b.do(chromedp.WaitNotPresent(chromedp.CSS(".menu")))
	b.focused("Language, display, account")
	b.calm()
}

// dialogs waits until so many dialogs are open, one over the other.
func (b *browser) dialogs(n int, after string) {
	b.t.Helper()
	var open int
	if !wait(90*time.Second, func() bool {
		var err error
		open, err = evaluate[int](b, `document.querySelectorAll('dialog[open]').length`)
		return err == nil && open == n
	}) {
		b.screenshot("failed")
		on, _ := evaluate[string](b, focus)
		b.t.Fatalf("after %s, %d dialogs are open, want %d; the focus is on %q; the page shows:\n%s", after, open, n, on, b.text())
	}
}

// stage waits until the case that is shown is at a stage.
func (b *browser) stage(name string) {
	b.t.Helper()
	var at string
	if !wait(90*time.Second, func() bool {
		at, _ = evaluate[string](b, `document.querySelector('.track .here')?.innerText ?? ''`)
		return at == name
	}) {
		b.screenshot("failed")
		b.t.Fatalf("the case is at %q, want %q; the page shows:\n%s", at, name, b.text())
	}
}

// focusesAfterDialog gives something the focus in the same moment in which
// the dialog that is open is gone, as the tab key of somebody quick does: it is
// to be there still, once the dialog has ended.
func (b *browser) focusesAfterDialog(selector string) {
	b.t.Helper()
	js := fmt.Sprintf(`new MutationObserver((_, o) => {
		if (document.querySelector('dialog[open]')) return
		o.disconnect()
		document.querySelector(%q).focus({ focusVisible: true })
	}).observe(document.body, { childList: true, subtree: true, attributes: true }), true`, selector)
	if _, err := evaluate[bool](b, js); err != nil {
		b.t.Fatal(err)
	}
}

// press presses keys, or types.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// focus is what the focused element is called, followed by why it could not be
// seen that it has the focus.
const focus = `(() => {
	const e = document.activeElement
	if (e === document.body || e.id === 'main') return ''
	const name = e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.textContent || e.tagName
	const drawn = x => x && getComputedStyle(x).outlineStyle !== 'none' && parseFloat(getComputedStyle(x).outlineWidth) >= 2
	const box = e.getBoundingClientRect()
	const seen = box.bottom > 0 && box.top < innerHeight && (drawn(e) || drawn(e.parentElement))
	return name.trim() + (seen ? '' : '\n without a sign of it: ' + e.outerHTML.slice(0, 200))
})()`

// focused waits until what has the focus is called so.
func (b *browser) focused(name string) {
	b.t.Helper()
	var last string
	if !wait(20*time.Second, func() bool {
		last, _ = evaluate[string](b, focus)
		return strings.Contains(last, name)
	}) {
		b.screenshot("failed")
		b.t.Fatalf("the focus is on %q, want %q; the page shows:\n%s", last, name, b.text())
	}
}

// tabTo goes on by the tab key until what has the focus is called so.
func (b *browser) tabTo(name string) {
	b.t.Helper()
	for range 200 {
		b.press(kb.Tab)
		got, err := evaluate[string](b, focus)
		if err != nil {
			b.t.Fatal(err)
		}
		if strings.Contains(got, "without a sign of it") {
			b.screenshot("failed")
			b.t.Errorf("the focus is on %s", got)
		}
		if strings.Contains(got, name) {
			return
		}
	}
	b.screenshot("failed")
	b.t.Fatalf("the tab key does not come to %q in:\n%s", name, b.text())
}

// TestEachPageIsFair has axe look at every page, and at its contrast in the dark.
// With CONSOLE_LOOKS=all, as by night, also in English and in high contrast.
func TestEachPageIsFair(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	type language struct {
		lang, signIn, then string
		shown              [2]string // what tells that the alarms and the cases are there
	}
	languages := []language{{"zh-CN", "登录", "地图", [2]string{"防火分区烟雾", "E0595"}}}
	looks := [][2]string{{"dark", ""}}
	if os.Getenv("CONSOLE_LOOKS") == "all" {
		languages = append(languages, language{"en-US", "Sign in", "Map", [2]string{"Smoke in a fire zone", "E0595"}})
		looks = everyLook
	}
	for _, l := range languages {
		b := openBrowser(t, p.http, l.lang)
		b.signIn("admin", testPassword, l.signIn, l.then)
		b.visit("/alarms", l.shown[0])
		b.visit("/cases", l.shown[1])
		for _, path := range []string{
			"/", "/alarms", "/alarms?view=cleared", "/alarms/load", "/intake", "/intake/new", "/dispatch", "/handling", "/tasks", "/cases",
			"/supervision", "/evaluation", "/devices", "/devices/sd-mall-301", "/claim", "/components", "/sites", "/grids", "/ledger", "/deadletters",
			"/firmware", "/provisioning", "/uplinks", "/rules", "/rules/fire.zone-smoke", "/rules/fire.zone-smoke?tab=try",
			"/rules/fire.zone-smoke?tab=whynot", "/users", "/users?tab=apps", "/audit", "/notices", "/notices?tab=receivers", "/report",
		} {
			b.do(chromedp.Navigate(b.base+path), chromedp.WaitVisible(chromedp.CSS("main h1")))
			if !wait(60*time.Second, func() bool {
				done, err := evaluate[bool](b, `document.querySelector('.empty[role=status], [aria-busy=true]') === null`)
				return err == nil && done
			}) {
				t.Errorf("%s goes on loading", path)
			}
			b.fairInLooks(l.lang+" "+path, looks...)
		}
		b.calm()
	}
}

// TestEachRoleInChromium: every role comes in, sees the pages of its post, and
// no page asks for what the role may not have.
func TestEachRoleInChromium(t *testing.T) {
	t.Parallel()
	p := launchForBrowser(t, "--demo")
	c := clientOf(t, p)
	for role, want := range map[citywarden.Role]string{
		citywarden.RoleCitizen:    "/cases",
		citywarden.RoleViewer:     "/ /alarms /cases /supervision /evaluation /devices /rules",
		citywarden.RoleDepartment: "/ /alarms /handling /cases /evaluation /devices /rules",
		citywarden.RoleOfficer:    "/ /alarms /tasks /cases /devices /rules",
		citywarden.RoleVendor:     "/ /alarms /cases /devices /rules",
		citywarden.RoleDispatcher: "/ /alarms /dispatch /cases /supervision /evaluation /devices /rules",
	} {
		who := map[string]any{"name": role, "role": role, "password": "a good one"}
		if role == citywarden.RoleDepartment {
			who["department"] = "供水公司"
		}
		if err := c.call(t.Context(), "POST", "/users", who, nil); err != nil {
			t.Fatal(err)
		}
		b := openBrowser(t, p.http, "zh-CN")
		b.signIn(string(role), "a good one", "登录", "案卷")
		b.do(chromedp.WaitVisible(chromedp.CSS("nav a")))
		pages, err := evaluate[string](b, `[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href')).join(' ')`)
		if err != nil || pages != want {
			t.Errorf("%s has the pages %s (%v), want %s", role, pages, err, want)
		}
		for page := range strings.FieldsSeq(pages) {
			b.do(chromedp.Navigate(b.base+page), chromedp.WaitVisible(chromedp.CSS("main h1, main canvas")))
		}
		if role == citywarden.RoleCitizen {
			b.visit("/alarms", "没有这个页面")
			b.visit("/intake/new", "登记案卷")
			b.do(chromedp.WaitVisible(chromedp.CSS(".pickmap canvas")))
			b.fill("input[maxlength='200']", "路灯不亮")
			b.fill("input[list=classes]", "event/0506")
			b.click("登记案卷")
			b.see("办理经过")
		}
		b.calm()
	}
}

// TestTroubleInChromium: while messages of devices are not acknowledged, the
// console says why.
func TestTroubleInChromium(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "full.yaml")
	if err := os.WriteFile(config, []byte("log:\n  reserve: 1000000000000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launchForBrowser(t, "--config", config)
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "磁盘")
	b.fair("the console in trouble")
	b.screenshot("trouble")
	b.calm()
}

// phone makes the window as wide as a phone.
func (b *browser) phone() {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile))
}

// drawn waits until the map has drawn all that it shows.
func (b *browser) drawn() {
	b.t.Helper()
	if !wait(90*time.Second, func() bool {
		drawn, err := evaluate[bool](b, `document.querySelector('[data-state=idle] canvas') !== null`)
		return err == nil && drawn
	}) {
		b.t.Error("the map is not drawn")
	}
}

// fitPhone visits pages, each a path and what it shows, and fails the test when
// one is wider than a phone.
func (b *browser) fitPhone(pages [][2]string) {
	b.t.Helper()
	b.phone()
	for _, page := range pages {
		b.visit(page[0], page[1])
		if wide, err := evaluate[int](b, `document.documentElement.scrollWidth`); err != nil || wide > 390 {
			b.t.Errorf("%s is %d px wide on a phone of 390 (%v)", page[0], wide, err)
		}
		path, _, _ := strings.Cut(page[0], "?")
		b.screenshot("narrow" + strings.ReplaceAll(path, "/", "-"))
	}
}

// choose chooses an option of a field, as a person does.
func (b *browser) choose(selector, value string) {
	b.t.Helper()
	js := fmt.Sprintf(`(() => {
		const e = document.querySelector(%q)
		if (![...(e?.options ?? [])].some(o => o.value === %[2]q)) return false
		e.value = %[2]q
		e.dispatchEvent(new Event('change', { bubbles: true }))
		return true
	})()`, selector, value)
	if !wait(90*time.Second, func() bool {
		chosen, err := evaluate[bool](b, js)
		return err == nil && chosen
	}) {
		b.screenshot("failed")
		b.t.Fatalf("no field %s with the choice %q in:\n%s", selector, value, b.text())
	}
}

// grayPhoto writes a photo and returns its path.
func grayPhoto(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "photo.png")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, image.NewGray(image.Rect(0, 0, 320, 240))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// fill types a text into an empty field.
func (b *browser) fill(selector, text string) {
	b.t.Helper()
	field := chromedp.CSS(selector)
	b.do(chromedp.WaitVisible(field), chromedp.SendKeys(field, text))
}
