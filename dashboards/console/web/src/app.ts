// What the whole console shares: who is signed in, the clock, the catalogue of
// models and classes, the live stream, and small hooks to draw from them.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, enc, get, list, query } from './api'
import { setClock } from './format'
import { t, type Key } from './i18n'
import { Live, type LiveState } from './live'
import { reason } from './reasons'
import { remember, remembered } from './remember'
import { withFilter } from './url'
import type { Case, CaseClass, Device, Info, List, Model, Move, Role, User } from './types'

type Listener = () => void

/** Emitter tells listeners that something changed. */
export class Emitter<T = void> {
  private readonly all = new Set<(x: T) => void>()
  on(f: (x: T) => void): Listener {
    this.all.add(f)
    return () => this.all.delete(f)
  }
  emit(x: T) {
    for (const f of [...this.all]) f(x)
  }
}

export const redraw = new Emitter()
export const liveEvents = new Emitter<{ kind: string; data: unknown }>()
export const reload = new Emitter() // events were missed: load again what is shown
export const back = new Emitter() // the connection is back: what could not be loaded may be there now
export const moved = new Emitter()
export const said = new Emitter<{ text: string; bad: boolean }>()

/** say shows a short notice. */
export const say = (text: string, bad = false) => said.emit({ text, bad })

export const state = {
  user: undefined as User | undefined,
  info: undefined as Info | undefined,
  models: new Map<string, Model>(),
  classes: new Map<string, CaseClass>(),
  moves: [] as Move[], // the workflow of cases
  live: 'connecting' as LiveState,
  expired: false,
}

let live: Live | undefined

// The platform does not say when it is in trouble: it is asked.
const asking = 30_000
let checking: ReturnType<typeof setInterval> | undefined

async function check() {
  if (document.visibilityState === 'hidden') return
  const before = JSON.stringify(state.info?.trouble)
  state.info = await get<Info>('/info')
  if (JSON.stringify(state.info.trouble) !== before) redraw.emit()
}

/** needs asks for what every page needs; citizens see the own cases, and nothing of the city. */
function needs(citizen: boolean) {
  return Promise.all([
    get<Info>('/info'),
    citizen ? { items: [] } : get<List<Model>>('/models'),
    get<List<CaseClass>>('/classes'),
    get<{ moves: Move[] }>('/workflow'),
  ])
}

/**
 * begin asks who is signed in, and enters. What every page needs is asked for
 * at the same time, where somebody was signed in before: it is there a round trip sooner.
 */
export async function begin() {
  const role = remembered('role') ?? ''
  const early = role === '' ? undefined : needs(role === 'citizen')
  early?.catch(() => {}) // it is asked for again, once it is known who it is
  const user = await get<User>('/me')
  await enter(user, user.role === role ? await early?.catch(() => undefined) : undefined)
}

/** enter loads what every page needs, unless that is there, and opens the live stream; the user is signed in. */
export async function enter(user: User, early?: Awaited<ReturnType<typeof needs>>) {
  const citizen = user.role === 'citizen'
  const [info, models, classes, workflow] = early ?? (await needs(citizen))
  remember('role', user.role)
  setClock(info.time_zone, info.now)
  state.user = user
  state.info = info
  state.models = new Map(models.items.map((m) => [m.name, m]))
  state.classes = new Map(classes.items.map((c) => [c.code, c]))
  state.moves = workflow.moves
  state.expired = false
  live?.close()
  live = citizen ? undefined : listen()
  clearInterval(checking)
  checking = setInterval(() => void check().catch(() => {}), asking)
  redraw.emit()
}

/** listen opens the live stream. */
function listen(): Live {
  return new Live({
    url: '/api/v1/events?kinds=alarm,case,device',
    onEvent: (kind, data) => liveEvents.emit({ kind, data }),
    onReset: () => reload.emit(),
    onSignedOut: () => leave(true),
    onState: (s) => {
      if (state.live === 'lost' && s === 'open') {
        say(t('live.back'))
        back.emit()
        void get<Info>('/info').then((i) => setClock(i.time_zone, i.now), () => {})
      }
      state.live = s
      redraw.emit()
    },
  })
}

/** leave forgets the user; expired says that it was not their wish. */
export function leave(expired: boolean) {
  live?.close()
  live = undefined
  clearInterval(checking)
  remember('role', '')
  if (state.user === undefined) return
  state.user = undefined
  state.expired = expired
  state.live = 'connecting'
  redraw.emit()
}

addEventListener('online', () => live?.retryNow())

// A page that was left (kept for the back button), or that nobody has looked at
// for a minute, gives its connection free.
const unwatched = 60_000
let hidden: ReturnType<typeof setTimeout> | undefined
document.addEventListener('visibilitychange', () => {
  clearTimeout(hidden)
  if (document.visibilityState === 'hidden') {
    hidden = setTimeout(() => live?.pause(), unwatched)
    return
  }
  live?.resume()
  live?.retryNow()
})
addEventListener('pagehide', () => live?.pause())
addEventListener('pageshow', () => live?.resume())

/** go moves to an address without loading the page. */
export function go(to: string, replace = false) {
  if (replace) history.replaceState(null, '', to)
  else history.pushState(null, '', to)
  moved.emit()
}

const meanings: Partial<Record<number, Key>> = {
  400: 'err.invalid',
  403: 'err.denied',
  404: 'err.missing',
  409: 'err.conflict',
  413: 'err.large',
  429: 'err.wait',
  503: 'err.busy',
}

/** words says an error as a person should read it: what its status means, and the server's reason. */
export function words(e: unknown): string {
  if (!(e instanceof ApiError)) return String(e)
  if (e.status === 0) return t('err.offline')
  return t(meanings[e.status] ?? (e.status >= 500 ? 'err.server' : 'err.invalid'), reason(e.message) || e.status)
}

/** useRedraw draws the component again when the emitter speaks. */
export function useRedraw(e: Emitter) {
  const [, set] = useState(0)
  useEffect(() => e.on(() => set((n) => n + 1)), [e])
}

/** useTick draws the component again every ms, for ages and countdowns. */
export function useTick(ms: number) {
  const [, set] = useState(0)
  useEffect(() => {
    const i = setInterval(() => {
      if (document.visibilityState === 'visible') set((n) => n + 1)
    }, ms)
    return () => clearInterval(i)
  }, [ms])
}

/** Loaded is something that was asked for. */
export interface Loaded<T> {
  data: T | undefined
  error: string
  again: () => void
  change: (f: (x: T) => T) => void
}

/**
 * useLoad asks for something, again whenever key changes or events were missed.
 * What was there before stays until the new is there; when the first try fails
 * it tries again when the connection is back, as it does when an answer is
 * awaited then. every is after how many ms it asks anew, 0 for never; an answer
 * that takes longer is waited for.
 */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>, every = 0): Loaded<T> {
  const [got, set] = useState<{ key: string; data: T | undefined; error: string }>({ key, data: undefined, error: '' })
  const run = useRef<AbortController | undefined>(undefined) // of the request under way
  const again = useCallback(() => {
    run.current?.abort()
    const abort = (run.current = new AbortController())
    const answered = (f: (before: typeof got) => typeof got) => {
      if (abort.signal.aborted) return
      run.current = undefined
      set(f)
    }
    load(abort.signal).then(
      (data) => answered(() => ({ key, data, error: '' })),
      (e) => answered((b) => ({ key, data: b.key === key ? b.data : undefined, error: words(e) })),
    )
    // load is a new function with every drawing; key says when it means something new.
    // eslint-disable-next-line
  }, [key])
  useEffect(() => {
    again()
    const off = reload.on(again)
    return () => {
      off()
      run.current?.abort()
    }
  }, [again])
  useEffect(() => {
    if (every === 0) return
    const i = setInterval(() => run.current === undefined && again(), every)
    return () => clearInterval(i)
  }, [again, every])
  const error = got.key === key ? got.error : ''
  const failed = error !== ''
  useEffect(() => back.on(() => (failed || run.current !== undefined) && again()), [failed, again])
  const change = useCallback((f: (x: T) => T) => set((b) => (b.data === undefined ? b : { ...b, data: f(b.data) })), [])
  return { data: got.key === key ? got.data : undefined, error, again, change }
}

/** Part is the beginning of a list: its items, whether there are more, and how many were asked for. */
export interface Part<T> {
  items: T[]
  more: boolean
  most: number
}

/** Listed is a list of which the beginning was asked for. */
export interface Listed<T> extends Loaded<Part<T>> {
  items: T[] // none until they are there
  longer: () => void // asks for three times as many
  growing: boolean // more were asked for than are there
}

/**
 * useList asks for the first items of a list, size of them until more are
 * wanted; with other params it begins anew, or with another key where the
 * params change by themselves. What is there stays while more are asked for.
 */
export function useList<T>(
  path: string,
  params: Record<string, string | number | boolean | undefined>,
  size: number,
  every = 0,
  key = path + query(params),
): Listed<T> {
  const [, redraw] = useState(0)
  const asked = useRef({ key, params, most: size })
  asked.current = { key, params, most: asked.current.key === key ? asked.current.most : size }
  const { most } = asked.current
  const loaded = useLoad<Part<T>>(
    key,
    async (signal) => {
      const { params, most } = asked.current
      return { ...(await list<T>(path, params, most, signal)), most }
    },
    every,
  )
  return {
    ...loaded,
    items: loaded.data?.items ?? [],
    growing: loaded.data !== undefined && loaded.data.most < most,
    longer() {
      asked.current = { key, params, most: most * 3 }
      redraw((n) => n + 1)
      loaded.again()
    },
  }
}

/** filters is what a page's address narrows its list to; set changes one filter there, clear takes them away, undefined where there are none. */
export function filters<K extends string>(path: string, search: string, names: readonly K[]) {
  const q = new URLSearchParams(search)
  const asked = Object.fromEntries(names.map((k) => [k, q.get(k) ?? ''])) as Record<K, string>
  const none = () => go(path + names.reduce((s, k) => withFilter(s, k, ''), search), true)
  return {
    asked,
    set: (name: string, value: string) => go(path + withFilter(search, name, value), true),
    clear: names.some((k) => asked[k] !== '') ? none : undefined,
  }
}

/** useLive calls f with every live event of a kind. */
export function useLive<T>(kind: string, f: (x: T) => void) {
  const last = useRef(f)
  last.current = f
  useEffect(() => liveEvents.on((e) => e.kind === kind && last.current(e.data as T)), [kind])
}

const together = 500

/** useLiveTogether calls f with the live events of a kind, gathered: at most twice a second, however many come in. */
export function useLiveTogether<T>(kind: string, f: (xs: T[]) => void) {
  const waiting = useRef<T[]>([])
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  const last = useRef(f)
  last.current = f
  useLive<T>(kind, (x) => {
    waiting.current.push(x)
    timer.current ??= setTimeout(() => {
      timer.current = undefined
      last.current(waiting.current.splice(0))
    }, together)
  })
  useEffect(() => () => clearTimeout(timer.current), [])
}

/** usePlace returns the address and draws again when it changes. */
export function usePlace(): { pathname: string; search: string } {
  const [, set] = useState(0)
  useEffect(() => {
    const f = () => set((n) => n + 1)
    const off = moved.on(f)
    addEventListener('popstate', f)
    return () => {
      off()
      removeEventListener('popstate', f)
    }
  }, [])
  return { pathname: location.pathname, search: location.search }
}

const names = new Map<string, string>() // of devices, as far as they are known
const asked = new Set<string>()

/** useNames returns the names of devices as far as they are known, and asks for the others, each once. */
export function useNames(ids: string[]): (id: string) => string {
  const [, set] = useState(0)
  useEffect(() => {
    for (const id of ids) {
      if (id === '' || asked.has(id)) continue
      asked.add(id)
      get<Device>('/devices/' + enc(id)).then(
        (d) => {
          names.set(id, d.name)
          set((n) => n + 1)
        },
        () => asked.delete(id),
      )
    }
  }, [ids.join()])
  return (id) => names.get(id) || id
}

/** whereOf is where a case is: at which component, or the device of its first alarm; "" for neither. */
export const whereOf = (c: Case) => c.component_name || c.device_name || c.device || ''

const roles = {
  city: ['admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'department', 'officer', 'engineer', 'vendor', 'viewer', 'service'],
  alarms: ['admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'officer'],
  outOfService: ['admin', 'supervisor', 'shift_leader', 'engineer'],
  tell: ['admin', 'supervisor', 'shift_leader', 'dispatcher', 'vendor'],
  rules: ['admin', 'engineer'],
  users: ['admin'],
  devices: ['admin', 'vendor'],
  claim: ['admin', 'supervisor', 'department', 'officer', 'vendor'],
  sites: ['admin', 'engineer'],
  components: ['admin', 'supervisor'],
  grids: ['admin'],
  notices: ['admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'officer', 'engineer'],
  cases: ['admin', 'supervisor', 'acceptor', 'shift_leader', 'officer', 'citizen'], // open them
  reporters: ['admin', 'supervisor', 'acceptor', 'officer'],
  // the pages of the posts
  intake: ['admin', 'supervisor', 'acceptor', 'shift_leader'],
  dispatch: ['admin', 'dispatcher'],
  handling: ['admin', 'department'],
  tasks: ['admin', 'officer'],
  evaluation: ['admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'department', 'viewer'],
  supervision: ['admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'viewer'],
} satisfies Record<string, Role[]>

/** may says whether to show the buttons; the server decides. */
export const may = (what: keyof typeof roles) => state.user !== undefined && (roles[what] as Role[]).includes(state.user.role)

/** upsert puts x into items by its id: in its place, or in front. */
export function upsert<T extends { id: string }>(items: T[], x: T): T[] {
  const i = items.findIndex((y) => y.id === x.id)
  if (i < 0) return [x, ...items]
  const out = items.slice()
  out[i] = x
  return out
}
