import { h, render, type ComponentChild } from 'preact'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { Case } from '../src/types'

vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { back, reload, useList, useLoad, whereOf } = await import('../src/app')
const { ApiError } = await import('../src/api')

/** Page is a component that draws nothing: what it needs of a document is a place. */
class Page<P extends object> {
  private readonly place = { namespaceURI: '', firstChild: null, childNodes: [] } as unknown as Element
  private readonly of: (p: P) => null
  constructor(use: (p: P) => void) {
    this.of = (p) => (use(p), null)
  }
  async show(p: P) {
    await this.draw(h(this.of, p))
  }
  leave = () => this.draw(null)
  private async draw(what: ComponentChild) {
    render(what, this.place)
    await vi.advanceTimersByTimeAsync(200) // the effects follow
  }
}

/** Question is one that was asked, and how to answer it. */
interface Question {
  key: string
  signal: AbortSignal
  answer: (x: string) => void
  fail: (e: unknown) => void
}

let questions: Question[]
let got: { data: string | undefined; error: string; again: () => void }
const loads = (every: number) =>
  new Page<{ name: string }>(({ name }) => {
    got = useLoad(name, (signal) => new Promise<string>((answer, fail) => questions.push({ key: name, signal, answer, fail })), every)
  })

let page: Page<{ name: string }>
beforeEach(() => {
  vi.useFakeTimers()
  questions = []
})
afterEach(() => void vi.useRealTimers())

it('waits for an answer that takes longer than the interval, and asks anew after it', async () => {
  page = loads(10_000)
  await page.show({ name: 'a' })
  await vi.advanceTimersByTimeAsync(35_000)
  expect(questions.map((q) => q.signal.aborted)).toEqual([false])
  questions[0]!.answer('late')
  await vi.advanceTimersByTimeAsync(200)
  expect(got.data).toBe('late')
  await vi.advanceTimersByTimeAsync(10_000)
  expect(questions.length).toBe(2)
  questions[1]!.fail(new ApiError(503, 'transient', 'no'))
  await vi.advanceTimersByTimeAsync(10_000)
  expect(questions.length).toBe(3) // a failure is an answer
  expect(got.data).toBe('late')
  await page.leave()
  expect(questions[2]!.signal.aborted).toBe(true)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(questions.length).toBe(3)
})

it('breaks a request off when it is asked again, events were missed or the connection is back', async () => {
  page = loads(0)
  await page.show({ name: 'a' })
  got.again()
  reload.emit()
  back.emit()
  expect(questions.map((q) => q.signal.aborted)).toEqual([true, true, true, false])
  questions[0]!.answer('old')
  questions[3]!.answer('new')
  await vi.advanceTimersByTimeAsync(200)
  expect(got.data).toBe('new')
  back.emit() // it is there: nothing to ask for
  expect(questions.length).toBe(4)
  await page.leave()
})

it('keeps the error of one thing from the next', async () => {
  page = loads(0)
  await page.show({ name: 'a' })
  questions[0]!.fail(new ApiError(404, 'not_found', 'no device a'))
  await vi.advanceTimersByTimeAsync(200)
  expect(got.error).not.toBe('')
  back.emit()
  expect(questions.length).toBe(2)
  await page.show({ name: 'b' })
  expect(questions.map((q) => q.key)).toEqual(['a', 'a', 'b'])
  expect(got).toMatchObject({ data: undefined, error: '' })
  await page.leave()
})

/** answering stubs the network: it returns the addresses asked for, and answers each. */
function answering(f: (url: URL) => unknown): URL[] {
  const asked: URL[] = []
  vi.stubGlobal('fetch', async (path: string) => {
    const url = new URL(path, 'http://x')
    asked.push(url)
    return new Response(JSON.stringify(f(url)))
  })
  return asked
}

it('keeps what more of a list was asked for while its params change by themselves', async () => {
  const asked = answering((u) => ({ items: Array.from({ length: Number(u.searchParams.get('limit')) }, (_, i) => i), next: 'more' }))
  let list: ReturnType<typeof useList<number>>
  const page = new Page<{ to: string; device: string }>(({ to, device }) => {
    list = useList<number>('/ledger', { to, device }, 2, 60_000, 'last 24h ' + device)
  })
  const last = () => asked.at(-1)!.search
  await page.show({ to: '13:00', device: '' })
  list!.longer()
  await vi.advanceTimersByTimeAsync(200)
  expect(list!.items.length).toBe(6)
  await page.show({ to: '14:00', device: '' })
  expect(list!.items.length).toBe(6)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(last()).toBe('?to=14%3A00&limit=6')
  await page.show({ to: '14:00', device: 'd1' })
  expect(last()).toBe('?to=14%3A00&device=d1&limit=2')
  expect(list!.items.length).toBe(2)
  await page.leave()
})

it('says where a case is by what the case says', () => {
  const c = { id: 'c1', alarms: ['a1'], device: 'sd-1' } as Case
  expect(whereOf(c)).toBe('sd-1')
  expect(whereOf({ ...c, device_name: 'Mall 301' })).toBe('Mall 301')
  expect(whereOf({ ...c, device_name: 'Mall 301', component_name: 'Hydrant 7' })).toBe('Hydrant 7')
  expect(whereOf({ id: 'c2' } as Case)).toBe('')
})
