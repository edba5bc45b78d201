// Looks at every page in headless Chromium: screenshots into shots/, axe on
// each, console errors and requests to other hosts reported.
//
//   node dev/mock.mjs & node dev/shots.mjs [base] [name part]
import { readFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const base = process.argv[2] ?? 'http://127.0.0.1:8099'
const only = process.argv[3] ?? ''
const user = process.env.CONSOLE_USER ?? 'admin'
const password = process.env.CONSOLE_PASSWORD ?? 'pass'
const out = join(import.meta.dirname, '../shots')
mkdirSync(out, { recursive: true })
const axe = readFileSync(join(import.meta.dirname, '../node_modules/axe-core/axe.min.js'), 'utf8')
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-background-networking', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist'],
})
let bad = 0
let session // of the first sign-in; the platform counts sign-ins
async function look(name, { lang = 'zh-CN', dark = false, contrast = false, width = 1360, height = 860 }, steps) {
  if (!name.includes(only)) return
  const context = await browser.newContext({ locale: lang, colorScheme: dark ? 'dark' : 'light', contrast: contrast ? 'more' : 'no-preference', viewport: { width, height }, storageState: name.startsWith('signin') ? undefined : session })
  const page = await context.newPage()
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && !/status of 401|GPU stall|GL Driver/.test(m.text()) && (bad++, console.log(name, m.type(), m.text())))
  page.on('pageerror', (e) => (bad++, console.log(name, 'page error', e.message)))
  page.on('request', (r) => !r.url().startsWith(base) && !/^(blob|data):/.test(r.url()) && (bad++, console.log(name, 'foreign request', r.url())))
  try {
    await steps(page)
    await page.screenshot({ path: join(out, name + '.png') })
    const cdp = await context.newCDPSession(page)
    await cdp.send('Runtime.evaluate', { expression: axe })
    const { result } = await cdp.send('Runtime.evaluate', { expression: "axe.run(document,{runOnly:['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa','best-practice']}).then(r=>JSON.stringify(r.violations.map(v=>({id:v.id,impact:v.impact,n:v.nodes.length,at:v.nodes.slice(0,3).map(n=>n.target.join(' ')+' | '+(n.any[0]?.message??n.failureSummary??''))}))))", awaitPromise: true, returnByValue: true })
    for (const v of JSON.parse(result.value)) { bad++; console.log(name, 'axe', v.impact, v.id, v.n, v.at.join(' ; ')) }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    if (wide > 0) { bad++; console.log(name, 'wider than the window by', wide) }
  } catch (e) {
    bad++
    console.log(name, 'failed:', e.message)
    await page.screenshot({ path: join(out, name + '.failed.png') }).catch(() => {})
  }
  await context.close()
}
const signIn = async (page, path = '/') => {
  await page.goto(base + path)
  await page.waitForSelector('.desk, .signin')
  if ((await page.$('.signin')) !== null) {
    await page.fill('input[name=username]', user)
    await page.fill('input[name=password]', password)
    await page.press('input[name=password]', 'Enter')
    await page.waitForSelector('.desk')
    session = await page.context().storageState()
  }
}
const settled = async (page) => {
  await page.waitForTimeout(1500)
  await page.waitForSelector('.canvas[data-state=idle]', { timeout: 40_000 })
}
const at = (path, extra) => async (page) => {
  await signIn(page, path)
  await page.waitForTimeout(900)
  if (extra) await extra(page)
}
const first = (sel) => async (page) => { await page.click(sel); await page.waitForTimeout(1200) }
const phone = { width: 390, height: 844 }
const variants = [['zh', {}], ['en', { lang: 'en-GB' }], ['dark', { dark: true }], ['contrast', { contrast: true }], ['contrast-dark', { contrast: true, dark: true }], ['phone', phone], ['phone-en-dark', { ...phone, lang: 'en-GB', dark: true }]]
for (const [v, o] of variants) {
  await look('signin-' + v, o, async (page) => { await page.goto(base + '/'); if ((await page.waitForSelector('.signin, .desk').then((e) => e.getAttribute('class'))) === 'desk') await page.evaluate(() => fetch('/api/v1/logout', { method: 'POST' })); await page.goto(base + '/'); await page.waitForSelector('.signin') })
  await look('map-' + v, o, async (page) => { await signIn(page); await settled(page) })
  await look('mappick-' + v, o, async (page) => { await signIn(page); await settled(page); await page.click('.side .title'); await settled(page) })
  await look('alarms-' + v, o, at('/alarms'))
  await look('why-' + v, o, at('/alarms', first('.c-act button[aria-haspopup]')))
  await look('whybelow-' + v, o, at('/alarms', async (page) => { await page.click('.c-act button[aria-haspopup]'); await page.waitForSelector('.comment'); await page.evaluate(() => document.querySelector('.comment').scrollIntoView()); await page.waitForTimeout(400) }))
  await look('suppressed-' + v, o, at('/alarms?view=suppressed'))
  await look('out-' + v, o, at('/alarms?view=out'))
  await look('load-' + v, o, at('/alarms/load'))
  await look('shelve-' + v, o, at('/alarms', first('.c-act button.ghost')))
  await look('cases-' + v, o, at('/cases'))
  await look('case-' + v, o, at('/cases?q=E05', async (page) => { await page.click('.cases .title'); await page.waitForTimeout(900) }))
  await look('act-' + v, o, at('/cases', async (page) => { await page.click('.cases .title'); await page.waitForSelector('.buttons .primary'); await page.click('.buttons .primary'); await page.waitForTimeout(400) }))
  await look('devices-' + v, o, at('/devices'))
  await look('device-' + v, o, at('/devices', async (page) => { await page.click('.devices .title'); await page.waitForSelector('.uplot'); await page.waitForTimeout(600) }))
  await look('add-' + v, o, at('/devices', first('.head .primary')))
  await look('token-' + v, o, at('/devices', async (page) => { await page.click('.head .primary'); await page.fill('dialog label:nth-of-type(1) input', 'new-' + v); await page.click('dialog button.primary'); await page.waitForSelector('.copybox'); await page.waitForTimeout(300) }))
  await look('import-' + v, o, at('/devices', first('.head .buttons button')))
  await look('ledger-' + v, o, at('/ledger'))
  await look('ledgerall-' + v, o, at('/ledger?rows=all'))
  await look('compare-' + v, o, at('/ledger', async (page) => { await page.click('.card button'); await page.waitForSelector('.card [role=status]', { timeout: 90_000 }) }))
  await look('deadletters-' + v, o, at('/deadletters'))
  await look('replay-' + v, o, at('/deadletters', first('.head .end')))
  await look('firmware-' + v, o, at('/firmware'))
  await look('addfirmware-' + v, o, at('/firmware', first('.head .primary')))
  await look('provisioning-' + v, o, at('/provisioning'))
  await look('uplinks-' + v, o, at('/uplinks'))
  await look('newkey-' + v, o, at('/provisioning', first('.head .primary')))
  await look('credential-' + v, o, at('/devices', async (page) => { await page.click('.devices .title'); await page.waitForSelector('.uplot'); const b = page.locator('section', { has: page.locator('h2', { hasText: /凭据|Credentials/ }) }).locator('button').first(); await b.click(); await page.selectOption('dialog select', 'mqtt'); await page.waitForTimeout(400) }))
  await look('desks-' + v, o, at('/dispatch'))
  await look('intake-' + v, o, at('/intake'))
  await look('entry-' + v, o, at('/intake/new'))
  await look('supervision-' + v, o, at('/supervision'))
  await look('evaluation-' + v, o, at('/evaluation'))
  await look('users-' + v, o, at('/users'))
  await look('audit-' + v, o, at('/audit'))
  await look('tasks-' + v, o, at('/tasks'))
  await look('settings-' + v, o, at('/devices', first('.settings > button')))
  await look('rules-' + v, o, at('/rules'))
  await look('rule-' + v, o, at('/rules', first('.rules .title')))
  await look('tests-' + v, o, at('/rules', async (page) => { await page.click('.rules .title'); await page.click('.card .buttons button'); await page.waitForSelector('.report'); await page.waitForTimeout(400) }))
  await look('try-' + v, o, at('/rules', async (page) => { await page.click('.rules .title'); await page.click('.head .segments button:nth-child(2)'); await page.fill('.editor textarea', (await page.inputValue('.editor textarea')).replace('smoke', 'smoek')); await page.click('.card button.primary'); await page.waitForSelector('.report'); await page.waitForTimeout(400) }))
  await look('backtest-' + v, o, at('/rules', async (page) => { await page.click('.rules .title'); await page.click('.head .segments button:nth-child(2)'); await page.click('.go'); await page.waitForSelector('.figuretable', { timeout: 90_000 }); await page.evaluate(() => document.querySelector('.figuretable').scrollIntoView()); await page.waitForTimeout(400) }))
  await look('whynot-' + v, o, at('/devices', async (page) => { await page.click('.devices .title'); await page.click('details summary'); await page.selectOption('.whynot select', { index: 1 }); await page.click('.whynot button.primary'); await page.waitForSelector('.whynot .summary', { timeout: 30_000 }); await page.evaluate(() => document.querySelector('.whynot').scrollIntoView()); await page.waitForTimeout(400) }))
}
await browser.close()
console.log(bad === 0 ? 'all good' : bad + ' findings')
