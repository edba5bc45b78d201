import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { backoff, Live, Parser, quietMs } from '../src/live'

describe('Parser', () => {
  it('takes messages across chunks, comments, several data lines and every line end', () => {
    const p = new Parser()
    expect(p.feed(': hello\n\nid: 7\nevent: al')).toEqual([])
    expect(p.feed('arm\ndata: {"a":\ndata: 1}\n\n')).toEqual([{ id: '7', event: 'alarm', data: '{"a":\n1}' }])
    expect(p.feed('data: x\r\n\r\n')).toEqual([{ id: '7', event: 'message', data: 'x' }])
    expect(p.feed('event: case\n\n')).toEqual([])
    expect(p.feed('data:y\n\n')).toEqual([{ id: '7', event: 'message', data: 'y' }])
  })
})

it('waits longer after each failure, up to 15 s', () => {
  expect([1, 2, 3, 4, 5, 50].map(backoff)).toEqual([1000, 2000, 4000, 8000, 15000, 15000])
})

/** Server is an event stream that the test writes to and cuts. */
class Server {
  asked: (string | undefined)[] = []
  status = 200
  private out: ReadableStreamDefaultController<Uint8Array> | undefined
  fetch = (async (_url: string, init: RequestInit) => {
    this.asked.push((init.headers as Record<string, string>)['Last-Event-ID'])
    if (this.status === 0) throw new TypeError('refused')
    if (this.status !== 200) return new Response('', { status: this.status })
    const body = new ReadableStream<Uint8Array>({ start: (c) => void (this.out = c) })
    init.signal?.addEventListener('abort', () => this.cut())
    return new Response(body)
  }) as unknown as typeof fetch
  send(s: string) {
    this.out?.enqueue(new TextEncoder().encode(s))
  }
  cut() {
    try {
      this.out?.error(new Error('cut'))
    } catch {
      // it was cut before
    }
  }
}

describe('Live', () => {
  let server: Server
  let log: string[]
  let live: Live
  const start = () => {
    live = new Live({
      url: '/events',
      fetch: server.fetch,
      onEvent: (kind, data) => log.push(kind + ' ' + JSON.stringify(data)),
      onReset: () => log.push('reset'),
      onState: (s) => log.push(s),
      onSignedOut: () => log.push('signed out'),
    })
  }
  const settle = () => vi.advanceTimersByTimeAsync(1)
  beforeEach(() => {
    vi.useFakeTimers()
    server = new Server()
    log = []
    start()
  })
  afterEach(() => {
    live.close()
    vi.useRealTimers()
  })

  it('resumes after the last event and says that the connection was lost', async () => {
    await settle()
    server.send('id: 41\nevent: alarm\ndata: {"n":1}\n\n')
    await settle()
    server.cut()
    await settle()
    expect(log).toEqual(['open', 'alarm {"n":1}', 'lost'])
    await vi.advanceTimersByTimeAsync(1000)
    server.send('id: 41\nevent: alarm\ndata: {"n":1}\n\nid: 42\nevent: alarm\ndata: {"n":2}\n\n')
    await settle()
    expect(server.asked).toEqual([undefined, '41'])
    expect(log.slice(3)).toEqual(['open', 'alarm {"n":2}'])
  })

  it('resumes from the place that the server names at the beginning', async () => {
    await settle()
    server.send('retry: 2000\n\nid: 900\n\n')
    await settle()
    server.cut()
    await vi.advanceTimersByTimeAsync(1001)
    expect(server.asked).toEqual([undefined, '900'])
    expect(log).toEqual(['open', 'lost', 'open'])
  })

  it('loads again when there was no event to resume from', async () => {
    await settle()
    server.cut()
    await vi.advanceTimersByTimeAsync(1001)
    expect(log).toEqual(['open', 'lost', 'reset', 'open'])
  })

  it('loads again on reset, and when the server counts from the beginning', async () => {
    await settle()
    server.send('id: 90\nevent: alarm\ndata: {}\n\nid: 120\nevent: reset\ndata: {}\n\n')
    await settle()
    expect(live.lastEventID).toBe('120')
    server.send('id: 3\nevent: alarm\ndata: {}\n\nid: 4\nevent: alarm\ndata: {}\n\n')
    await settle()
    expect(log).toEqual(['open', 'alarm {}', 'reset', 'reset', 'alarm {}'])
  })

  it('keeps trying through errors of the server and of the network', async () => {
    await settle()
    server.status = 503
    server.cut()
    await vi.advanceTimersByTimeAsync(1000 + 1000 + 2000)
    server.status = 0
    await vi.advanceTimersByTimeAsync(4000)
    server.status = 200
    await vi.advanceTimersByTimeAsync(8000)
    expect(log.at(-1)).toBe('open')
  })

  it('takes a connection without a heartbeat for dead', async () => {
    await settle()
    await vi.advanceTimersByTimeAsync(quietMs - 10)
    server.send(': beat\n\n')
    await vi.advanceTimersByTimeAsync(quietMs - 10)
    expect(log).toEqual(['open'])
    await vi.advanceTimersByTimeAsync(20)
    expect(log).toEqual(['open', 'lost'])
  })

  it('gives the connection free while nobody looks, and goes on where it was', async () => {
    await settle()
    server.send('id: 7\nevent: alarm\ndata: {}\n\n')
    await settle()
    live.pause()
    await vi.advanceTimersByTimeAsync(600_000)
    expect(server.asked.length).toBe(1)
    live.retryNow()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(server.asked.length).toBe(1)
    live.resume()
    await settle()
    expect(server.asked).toEqual([undefined, '7'])
    expect(log).toEqual(['open', 'alarm {}', 'connecting', 'open'])
  })

  it('stops when nobody is signed in', async () => {
    await settle()
    server.status = 401
    server.cut()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(log).toEqual(['open', 'lost', 'signed out'])
    expect(server.asked.length).toBe(2)
  })
})
