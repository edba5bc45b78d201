// What people do to a case: the buttons of what is allowed, and the dialog that
// asks for what an action needs.
import { useEffect, useState } from 'preact/hooks'
import { ApiError, enc, get, post } from '../api'
import { say, state, useLoad, words } from '../app'
import { fromLocalInput, fullTime, limit, localInput, now } from '../format'
import { known, t, text } from '../i18n'
import { Icon, Modal, useBusy, When, who, Wrong } from '../ui'
import type { Case, CaseClass, CaseRequest, Duplicate, List, Officer } from '../types'
import { AddPhoto } from './photos'

/** forward are the actions that bring a case on; the others are shown less loudly, what refuses a request first. */
const forward = [
  'register', 'exists', 'file', 'dispatch', 'accept', 'handle', 'send_check', 'verify', 'close',
  'approve_send_back', 'approve_extension', 'approve_suspension', 'resume', 'endorse_appeal', 'approve_appeal', 'call_back',
]
const satisfactions = ['satisfied', 'fairly', 'dissatisfied', 'unreached'] as const

interface Done {
  onDone: (c: Case) => void
  onConflict: () => void
}

/** Actions are the buttons of what the person may do to a case now, and the dialog of the one that was chosen. */
export function Actions({ of: c, ...done }: { of: Case } & Done) {
  const [acting, setActing] = useState('')
  const loud = (a: string) => forward.includes(a) || (a === 'void' && c.request?.kind === 'void')
  const rank = (a: string) => (loud(a) ? 0 : a.startsWith('refuse_') ? 1 : 2)
  return (
    <>
      <div class="buttons">
        {[...(c.actions ?? [])].sort((a, b) => rank(a) - rank(b)).map((a) => (
          <button type="button" key={a} class={loud(a) ? 'primary' : ''} aria-haspopup="dialog" onClick={() => setActing(a)}>
            {known('act.', a)}
          </button>
        ))}
      </div>
      {acting !== '' && <Act c={c} action={acting} onClose={() => setActing('')} {...done} />}
    </>
  )
}

/** Act asks for what an action needs, and takes it. */
export function Act({ c, action, onClose, onDone, onConflict }: { c: Case; action: string; onClose: () => void } & Done) {
  const needs = state.moves.find((m) => m.action === action && m.from.includes(c.stage))?.needs ?? []
  const usual = state.classes.get(c.class)?.department ?? ''
  const [note, setNote] = useState('')
  const [department, setDepartment] = useState(action === 'dispatch' ? c.department || usual : '')
  const [officer, setOfficer] = useState('')
  const [until, setUntil] = useState('')
  const [other, setOther] = useState('')
  const [kind, setKind] = useState(() => classLabel(state.classes.get(c.class)) || c.class)
  const [satisfaction, setSatisfaction] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  // The revision that was on the screen when the dialog opened: what came after it was not seen.
  const [revision] = useState(c.revision)
  useEffect(() => setWrong(''), [note, department, until, other, kind, satisfaction])
  const noteNeeded = needs.includes('note')
  const depNeeded = needs.includes('department')
  const mayReclass = action === 'register' || action === 'file'
  const chosen = classOf(kind)
  const submit = (e: Event) => {
    e.preventDefault()
    if (mayReclass && chosen === undefined && kind !== c.class) return setWrong(t('ca.badClass'))
    if (depNeeded && department.trim() === '') return setWrong(t('ca.depMissing'))
    if (needs.includes('until') && until === '') return setWrong(t('ca.untilMissing'))
    if (needs.includes('case') && other === '') return setWrong(t('ca.caseMissing'))
    if (needs.includes('satisfaction') && satisfaction === '') return setWrong(t('ca.satisfactionMissing'))
    if (noteNeeded && note.trim() === '') return setWrong(t('ca.noteMissing'))
    run(async () => {
      try {
        const x = await post<Case>(`/cases/${enc(c.id)}/actions/${enc(action)}`, {
          note: note.trim() || undefined,
          class: mayReclass && chosen !== undefined && chosen.code !== c.class ? chosen.code : undefined,
          department: depNeeded ? department.trim() : undefined,
          officer: officer || undefined,
          until: needs.includes('until') ? new Date(fromLocalInput(until + 'T23:59:59')).toISOString() : undefined,
          case: needs.includes('case') ? other : undefined,
          satisfaction: needs.includes('satisfaction') ? satisfaction : undefined,
          revision,
        })
        onDone(x)
        say(t('ca.did', known('did.', action), text(c.title, c.id)))
        onClose()
      } catch (e) {
        if (!(e instanceof ApiError) || e.status !== 409) throw e
        say(words(e), true)
        onConflict()
        onClose()
      }
    })
  }
  return (
    <Modal title={known('act.', action)} onClose={onClose}>
      <form onSubmit={submit}>
        <p class="quiet">
          {text(c.title)} · {c.id}
        </p>
        {c.request && decides(action, c.request.kind) && (
          <p class="note">
            <b>{t(`ask.${c.request.kind}`)}</b>
            <span class="line">
              {c.request.note}{' '}
              <span class="quiet">
                {who(c.request.by)} · <When at={c.request.at} />
              </span>
            </span>
            {c.request.until && <span class="line">{t('ca.did', t('ca.untilWhen'), fullTime(c.request.until))}</span>}
          </p>
        )}
        {explained(c, action) !== '' && <p>{explained(c, action)}</p>}
        {depNeeded && (
          <label>
            {t('ca.depNeeded')}
            <input list="departments" autofocus value={department} onInput={(e) => setDepartment(e.currentTarget.value)} aria-invalid={wrong === t('ca.depMissing')} />
            <datalist id="departments">
              {departments().map((d) => (
                <option key={d} value={d} />
              ))}
            </datalist>
            {usual !== '' && <span class="quiet small">{t('ca.depHint', usual)}</span>}
          </label>
        )}
        {needs.includes('officer') && <Officers chosen={officer} onChoose={setOfficer} />}
        {needs.includes('until') && (
          <label>
            {t('ca.untilWhen')}
            <input
              type="date"
              autofocus
              min={localInput(now()).slice(0, 10)}
              max={localInput(now() + longest).slice(0, 10)}
              value={until}
              onInput={(e) => setUntil(e.currentTarget.value)}
              aria-invalid={wrong === t('ca.untilMissing')}
            />
          </label>
        )}
        {needs.includes('case') && <Duplicates of={c} chosen={other} onChoose={setOther} />}
        {needs.includes('satisfaction') && (
          <label>
            {t('ca.satisfaction')}
            <select
              autofocus
              value={satisfaction}
              onChange={(e) => setSatisfaction(e.currentTarget.value)}
              aria-invalid={wrong === t('ca.satisfactionMissing')}
            >
              <option value="">{t('ca.satisfactionChoose')}</option>
              {satisfactions.map((s) => (
                <option key={s} value={s}>
                  {t(`sat.${s}`)}
                </option>
              ))}
            </select>
          </label>
        )}
        {mayReclass && <ClassField value={kind} onInput={setKind} wrong={wrong === t('ca.badClass')} />}
        {['verify', 'close'].includes(action) && (c.members ?? 0) > 0 && !c.back_to_normal && (
          <p class="note">
            <Icon name="warn" size={16} /> {t('ca.did', t('ca.notNormal'), t('ca.notNormalText'))}
          </p>
        )}
        {action === 'close' && c.closing_condition && <p class="note">{t('ca.did', t('ca.closing'), c.closing_condition)}</p>}
        {c.missing_photos?.[action] && <Demanded of={c} action={action} />}
        <label>
          {noteNeeded ? t('ca.noteNeeded') : t('ca.note')}
          <textarea
            rows={3}
            autofocus={noteNeeded || action === 'handle'}
            value={note}
            onInput={(e) => setNote(e.currentTarget.value)}
            aria-invalid={wrong === t('ca.noteMissing')}
          />
        </label>
        <Wrong text={wrong || error} />
        <footer>
          <button type="button" onClick={onClose}>
            {t('c.cancel')}
          </button>
          <button type="submit" class="primary" autofocus={needs.length === 0 && action !== 'handle'} disabled={busy}>
            {known('act.', action)}
          </button>
        </footer>
      </form>
    </Modal>
  )
}

/** longest is for how long a case may be suspended, ms. */
const longest = 366 * 86400_000

/** decides reports whether an action decides on what is asked for. */
const decides = (action: string, asked: CaseRequest['kind']) => action.endsWith('_' + asked) || action === asked

/** explained says what comes of an action; '' where its name says it. */
function explained(c: Case, action: string): string {
  switch (action) {
    case 'request_extension':
    case 'approve_extension':
      return t('hint.extension', limit(c.limit), c.extensions ?? 0)
    case 'request_suspension':
    case 'approve_suspension':
      return t('hint.suspension')
    case 'send_back':
      return ['pending_handling', 'handling'].includes(c.stage) ? t('hint.send_back') : ''
    case 'rework':
      return t('hint.rework', c.department ?? '')
    case 'merge':
    case 'void':
    case 'force_close':
    case 'supervise':
    case 'urge':
    case 'appeal':
      return t(`hint.${action}`)
  }
  return ''
}

/** Demanded asks for the photos without which an action is not taken. */
function Demanded({ of: c, action }: { of: Case; action: string }) {
  const loaded = useLoad('demanded ' + c.id, (signal) => get<Case>('/cases/' + enc(c.id), signal))
  const missing = (loaded.data ?? c).missing_photos?.[action] ?? []
  if (missing.length === 0) return <p class="note">{t('ph.all')}</p>
  return (
    <div class="note">
      <p>{t('ph.demanded', missing.map((k) => known('ph.', k)).join(t('list.sep')))}</p>
      <AddPhoto key={missing[0]} of={c} kind={missing[0]!} onDone={loaded.again} />
    </div>
  )
}

/** departments are those that the table of classes names. */
export const departments = () => [...new Set([...state.classes.values()].map((x) => x.department).filter(Boolean))].sort()

const classLabel = (k: CaseClass | undefined) => (k === undefined ? '' : `${text(k.name, k.code)} ${k.code}`)

/** classOf is the class that was typed: its label, code or name; undefined for none. */
export function classOf(typed: string): CaseClass | undefined {
  const s = typed.trim()
  return [...state.classes.values()].find((k) => classLabel(k) === s || k.code === s || k.name.zh === s || k.name.en === s)
}

/** ClassField asks for a class and shows what it asks for. */
export function ClassField({ value, onInput, wrong }: { value: string; onInput: (s: string) => void; wrong: boolean }) {
  const chosen = classOf(value)
  const lines =
    chosen === undefined
      ? []
      : [
          chosen.filing_condition && t('ca.did', t('ca.filing'), chosen.filing_condition),
          chosen.limit && t('ca.did', t('ca.limit'), limit(chosen.limit)),
          chosen.department && t('ca.did', t('ca.department'), chosen.department),
        ].filter(Boolean)
  return (
    <>
      <label>
        {t('ca.openClass')}
        <input list="classes" value={value} autocomplete="off" onInput={(e) => onInput(e.currentTarget.value)} aria-invalid={wrong} />
        <datalist id="classes">
          {[...state.classes.values()].map((k) => (
            <option key={k.code} value={classLabel(k)} />
          ))}
        </datalist>
        {chosen === undefined && <span class="quiet small">{t('ca.openClassHint')}</span>}
      </label>
      {lines.length > 0 && (
        <p class="note small">
          {lines.map((x, i) => (
            <span key={i} class="line">
              {x}
            </span>
          ))}
        </p>
      )}
    </>
  )
}

/** Officers asks who shall go and look; none is the officer of the unit grid. */
function Officers({ chosen, onChoose }: { chosen: string; onChoose: (name: string) => void }) {
  const loaded = useLoad('officers', (signal) => get<List<Officer>>('/officers', signal))
  return (
    <label>
      {t('ca.officer')}
      <select autofocus value={chosen} onChange={(e) => onChoose(e.currentTarget.value)}>
        <option value="">{t('ca.officerHint')}</option>
        {(loaded.data?.items ?? []).map((o) => (
          <option key={o.name} value={o.name}>
            {o.title === undefined ? o.name : `${o.title} (${o.name})`}
          </option>
        ))}
      </select>
    </label>
  )
}

/** Duplicates offers the cases that c may be a duplicate of, and takes any number. */
function Duplicates({ of: c, chosen, onChoose }: { of: Case; chosen: string; onChoose: (id: string) => void }) {
  const loaded = useLoad('duplicates ' + c.id, (signal) => get<List<Duplicate>>(`/cases/${enc(c.id)}/duplicates`, signal))
  return (
    <>
      <Alike of={loaded.data?.items ?? []} chosen={chosen} onChoose={onChoose} />
      <Wrong text={loaded.error} />
      {loaded.data !== undefined && loaded.data.items.length === 0 && <p class="quiet">{t('ca.noDuplicates')}</p>}
      <label>
        {t('ca.duplicateOf')}
        <input autofocus value={chosen} autocapitalize="off" spellcheck={false} onInput={(e) => onChoose(e.currentTarget.value.trim())} />
      </label>
    </>
  )
}

/** Alike lists cases to choose one of. */
export function Alike({ of, chosen, onChoose }: { of: Duplicate[]; chosen: string; onChoose: (id: string) => void }) {
  return (
    <>
      {of.map((d) => (
        <label key={d.case.id} class="choice">
          <input type="radio" name="duplicate" checked={chosen === d.case.id} onChange={() => onChoose(d.case.id)} />
          <span>
            {text(d.case.title, d.case.id)}
            <span class="sub">
              {d.case.id} · {t(`stage.${d.case.stage}`)} · {Math.round(d.distance_m)} m · <When at={d.case.opened} />
            </span>
          </span>
        </label>
      ))}
    </>
  )
}
