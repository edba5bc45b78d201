// Server-sent events over fetch. EventSource hides the heartbeat, so it can't
// tell a dead connection from a quiet one, and it gives up for good after an
// HTTP error; this one does neither, and resumes with Last-Event-ID always.

/** Message is one server-sent event. */
export interface Message {
  id: string
  event: string
  data: string
}

/** Parser cuts a text/event-stream into messages; feed it as chunks arrive. */
export class Parser {
  private rest = ''
  /** id is the newest id, also of an event without data, which only says where the stream is */
  id = ''
  private event = ''
  private data: string[] = []

  /** feed returns the messages that chunk completes. */
  feed(chunk: string): Message[] {
    this.rest += chunk
    const out: Message[] = []
    for (;;) {
      const m = /\r\n|\n|\r(?!$)/.exec(this.rest)
      if (m === null) return out
      const line = this.rest.slice(0, m.index)
      this.rest = this.rest.slice(m.index + m[0].length)
      if (line === '') {
        if (this.data.length > 0) out.push({ id: this.id, event: this.event || 'message', data: this.data.join('\n') })
        this.event = ''
        this.data = []
        continue
      }
      if (line.startsWith(':')) continue
      const colon = line.indexOf(':')
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
      if (field === 'data') this.data.push(value)
      else if (field === 'event') this.event = value
      else if (field === 'id' && !value.includes('\0')) this.id = value
    }
  }
}

/** backoff returns how long to wait before try n (from 1): 1, 2, 4, 8, at most 15 s. */
export const backoff = (n: number) => Math.min(15_000, 1000 * 2 ** Math.min(n - 1, 4))

/** quietMs is how long a connection may be silent (the server's heartbeat is 15 s) before it counts as dead. */
export const quietMs = 40_000

export type LiveState = 'connecting' | 'open' | 'lost'

export interface LiveOptions {
  url: string
  onEvent: (kind: string, data: unknown) => void
  /** onReset: events were missed for good; whatever was loaded must be loaded again. */
  onReset: () => void
  onState?: (s: LiveState) => void
  onSignedOut?: () => void
  fetch?: typeof fetch
}

/** Live keeps one stream open until close. */
export class Live {
  private last = ''
  private stopped = false
  private abort: AbortController | undefined
  private wake: (() => void) | undefined
  private opened = false
  private paused = false

  constructor(private readonly o: LiveOptions) {
    void this.run()
  }

  /** lastEventID is the id of the newest event seen, "" for none. */
  get lastEventID() {
    return this.last
  }

  close() {
    this.stopped = true
    this.abort?.abort()
    this.wake?.()
  }

  /**
   * pause gives the connection free until resume: a browser has six to a
   * server, for all of its tabs together, and one that nobody looks at must not
   * hold one of them.
   */
  pause() {
    if (this.paused || this.stopped) return
    this.paused = true
    this.o.onState?.('connecting')
    this.abort?.abort()
  }

  /** resume goes on after pause, with the event after the newest one seen. */
  resume() {
    if (!this.paused) return
    this.paused = false
    this.wake?.()
  }

  /** retryNow cuts a waiting time short, as when the network came back. */
  retryNow() {
    if (!this.paused) this.wake?.()
  }

  private async run() {
    for (let tries = 1; !this.stopped; tries++) {
      if (this.paused) {
        await new Promise<void>((done) => (this.wake = done))
        tries = 0
        continue
      }
      try {
        await this.once(() => {
          tries = 0
        })
      } catch {
        // a lost connection: said by the state, mended by the next round
      }
      if (this.stopped) return
      if (this.paused) continue
      this.o.onState?.('lost')
      await new Promise<void>((done) => {
        const t = setTimeout(done, backoff(Math.max(1, tries)))
        this.wake = () => {
          clearTimeout(t)
          done()
        }
      })
    }
  }

  private async once(connected: () => void) {
    const abort = (this.abort = new AbortController())
    let dead = setTimeout(() => abort.abort(), quietMs)
    try {
      const headers: Record<string, string> = { Accept: 'text/event-stream' }
      if (this.last !== '') headers['Last-Event-ID'] = this.last
      const res = await (this.o.fetch ?? fetch)(this.o.url, {
        headers,
        credentials: 'same-origin',
        cache: 'no-store',
        signal: abort.signal,
      })
      if (res.status === 401) {
        this.close()
        this.o.onSignedOut?.()
        return
      }
      if (!res.ok || res.body === null) throw new Error(`events: ${res.status}`)
      connected()
      // Without an id to resume from, what happened meanwhile is unknown.
      if (this.opened && this.last === '') this.o.onReset()
      this.opened = true
      this.o.onState?.('open')
      const reader = res.body.getReader()
      const text = new TextDecoder()
      const parser = new Parser()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        clearTimeout(dead)
        dead = setTimeout(() => abort.abort(), quietMs)
        for (const m of parser.feed(text.decode(value, { stream: true }))) this.take(m)
        if (parser.id !== '') this.last = parser.id
      }
    } finally {
      clearTimeout(dead)
    }
  }

  private take(m: Message) {
    if (m.event === 'reset') {
      this.last = m.id
      this.o.onReset()
      return
    }
    if (m.id !== '') {
      if (m.id === this.last) return
      // Ids only grow; a smaller one means that the server counts from the beginning again.
      const restarted = this.last !== '' && Number(m.id) < Number(this.last)
      this.last = m.id
      if (restarted) {
        this.o.onReset()
        return
      }
    }
    let data: unknown
    try {
      data = JSON.parse(m.data)
    } catch {
      return
    }
    this.o.onEvent(m.event, data)
  }
}
