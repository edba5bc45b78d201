// Cuts the stand-in's connections under an open page and looks whether the
// console says so, comes back without a reload, and shows what it missed.
//
//   node dev/mock.mjs & node dev/live.mjs [base]
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const base = process.argv[2] ?? 'http://127.0.0.1:8099'
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'] })
const page = await browser.newPage({ locale: 'zh-CN' })
await page.goto(base + '/alarms')
if ((await (await page.waitForSelector('.signin, .desk')).getAttribute('class')) === 'signin') {
  await page.fill('input[name=username]', 'admin')
  await page.fill('input[name=password]', 'pass')
  await page.press('input[name=password]', 'Enter')
}
await page.waitForSelector('.alarms')
await page.evaluate(() => (window.notReloaded = true))
const rows = () => page.locator('.alarms tbody tr').count()
const before = await rows()
const t0 = Date.now()
await fetch(base + '/mock/raise')
await page.waitForFunction((n) => document.querySelectorAll('.alarms tbody tr').length === n + 1, before)
console.log('a raised alarm is on the screen after', Date.now() - t0, 'ms')
await fetch(base + '/mock/break?on=1')
await page.waitForSelector('.banner')
console.log('banner:', await page.textContent('.banner'))
await page.screenshot({ path: join(import.meta.dirname, '../shots/lost.png') })
await fetch(base + '/mock/raise')
await page.click('nav a[href="/devices"]')
await page.waitForSelector('.empty[role=alert]')
await page.click('nav a[href="/"]')
await page.waitForSelector('.map .empty[role=alert]')
await fetch(base + '/mock/break?on=0')
await page.waitForSelector('.canvas')
console.log('a map that could not be loaded is there after the connection is')
await page.click('nav a[href="/alarms"]')
await page.waitForSelector('.banner', { state: 'detached' })
await page.waitForFunction((n) => document.querySelectorAll('.alarms tbody tr').length === n, before + 1) // the same alarm again
console.log('back without reload:', await page.evaluate(() => window.notReloaded), '; notice:', await page.textContent('.notices'))
await browser.close()
