// The desks after filing: dispatching, handling, supervision.
import { useMemo } from 'preact/hooks'
import { list } from '../api'
import { go, state, useLive, useLoad } from '../app'
import { t } from '../i18n'
import { Icon } from '../ui'
import { withFilter } from '../url'
import { openStages, type Case, type Stage } from '../types'
import { departments } from './act'
import { byDue, Desk, grouped, isLate, useCases } from './work'

const atWork: Stage[] = ['pending_handling', 'handling', 'suspended']

/** Dispatch is the desk of the dispatcher: what waits for a department, what departments ask for, what they work on. */
export function Dispatch({ search }: { search: string }) {
  const take = (c: Case) => c.stage === 'pending_dispatch' || atWork.includes(c.stage) || (c.request?.kind === 'appeal' && !c.request.endorsed)
  const open = useCases('dispatch', { open: 'true' }, take)
  const appeals = useLoad('appeals', (signal) => list<Case>('/cases', { request: 'appeal' }, 200, signal))
  useLive<Case>('case', (c) => c.request?.kind === 'appeal' && appeals.again())
  const asks = (c: Case) => c.request !== undefined && c.request.kind !== 'void'
  const items = useMemo(() => {
    const by = new Map([...(appeals.data?.items ?? []), ...(open.data?.items ?? [])].filter(take).map((c) => [c.id, c]))
    return [...by.values()].sort(byDue)
  }, [open.data, appeals.data])
  const of = (c: Case) => (asks(c) ? t('wk.asks') : c.stage === 'pending_dispatch' ? t('stage.pending_dispatch') : c.department || '–')
  return (
    <>
      <div class="head">
        <h1>{t('nav.dispatch')}</h1>
      </div>
      <Desk
        path="/dispatch"
        search={search}
        loaded={open}
        groups={grouped(items, of, [t('stage.pending_dispatch'), t('wk.asks')])}
        main={(c) => {
          if (c.stage === 'pending_dispatch') return 'dispatch'
          return { extension: 'approve_extension', suspension: 'approve_suspension', send_back: 'approve_send_back', appeal: 'endorse_appeal', void: '' }[c.request?.kind ?? 'void']
        }}
        hint={t('wk.hintDispatch')}
        empty={t('wk.noneDispatch')}
      />
    </>
  )
}

/** Handling is the list of a department, with what is left of each limit. */
export function Handling({ search }: { search: string }) {
  const own = state.user?.department ?? ''
  const department = own || (new URLSearchParams(search).get('department') ?? '')
  const take = (c: Case) => atWork.includes(c.stage) && (department === '' || c.department === department)
  const loaded = useCases('handling ' + department, { open: 'true', ...(department !== '' && { department }) }, take)
  const items = (loaded.data?.items ?? []).filter(take).sort(byDue)
  return (
    <>
      <div class="head">
        <h1>{own || t('nav.handling')}</h1>
        {own === '' && (
          <select
            aria-label={t('ca.department')}
            value={department}
            onChange={(e) => go('/handling' + withFilter(withFilter(search, 'case', ''), 'department', e.currentTarget.value), true)}
          >
            <option value="">{t('ca.anyDepartment')}</option>
            {departments().map((d) => (
              <option key={d}>{d}</option>
            ))}
          </select>
        )}
      </div>
      <Desk
        path="/handling"
        search={search}
        loaded={loaded}
        groups={grouped(items, (c) => t(`stage.${c.stage}`), atWork.map((s) => t(`stage.${s}`)))}
        main={(c) => (c.stage === 'pending_handling' ? 'accept' : c.stage === 'handling' ? 'handle' : '')}
        hint={t('wk.hintHandling')}
        empty={t('wk.noneHandling')}
      />
    </>
  )
}

/** flags are what supervision looks for. */
export const flags: { name: 'late' | 'suspended' | 'urged' | 'supervised' | 'reworked' | 'asks' | 'checks'; of: (c: Case) => boolean }[] = [
  { name: 'late', of: isLate },
  { name: 'suspended', of: (c) => c.stage === 'suspended' },
  { name: 'urged', of: (c) => (c.urged ?? 0) > 0 },
  { name: 'supervised', of: (c) => c.supervised ?? false },
  { name: 'reworked', of: (c) => (c.reworked ?? 0) > 0 },
  { name: 'asks', of: (c) => c.request !== undefined },
  { name: 'checks', of: (c) => ['handled', 'checking', 'pending_close'].includes(c.stage) },
]

/** Supervision is what went wrong or is about to, and what waits to be checked and closed, by department. */
export function Supervision({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const loaded = useCases('supervision', { open: 'true' }, (c) => openStages.includes(c.stage))
  const all = (loaded.data?.items ?? []).filter((c) => openStages.includes(c.stage))
  const flag = flags.find((f) => f.name === q.get('show'))
  const department = q.get('department') ?? ''
  const set = (name: string, value: string) => go('/supervision' + withFilter(withFilter(search, 'case', ''), name, value), true)
  const items = all
    .filter((c) => (flag === undefined ? flags.some((f) => f.of(c)) : flag.of(c)) && (department === '' || c.department === department))
    .sort(byDue)
  const names = [...new Set(all.map((c) => c.department ?? ''))].filter(Boolean).sort()
  return (
    <>
      <div class="head">
        <h1>{t('nav.supervision')}</h1>
      </div>
      <div class="stages" role="group" aria-label={t('c.filter')}>
        {flags.map((f) => {
          const n = all.filter((c) => f.of(c) && (department === '' || c.department === department)).length
          return (
            <button type="button" key={f.name} aria-pressed={flag === f} onClick={() => set('show', flag === f ? '' : f.name)}>
              <span class={'mark' + (f.name === 'late' && n > 0 ? ' bad' : '')}>
                {f.name === 'late' && n > 0 && <Icon name="warn" size={14} />} {t(`fl.${f.name}`)}
              </span>
              <b>{loaded.data === undefined ? '–' : n}</b>
            </button>
          )
        })}
      </div>
      {names.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={t('wk.byDepartment')}>
          <table class="plain figures-of">
            <caption class="hidden">{t('wk.byDepartment')}</caption>
            <thead>
              <tr>
                <th scope="col">{t('ca.department')}</th>
                <th scope="col">{t('wk.open')}</th>
                {flags.map((f) => (
                  <th scope="col" key={f.name}>
                    {t(`fl.${f.name}`)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {names.map((d) => {
                const of = all.filter((c) => c.department === d)
                return (
                  <tr key={d}>
                    <th scope="row">
                      <button type="button" class="link" aria-pressed={department === d} onClick={() => set('department', department === d ? '' : d)}>
                        {d}
                      </button>
                    </th>
                    <td class="num">{of.length}</td>
                    {flags.map((f) => {
                      const n = of.filter(f.of).length
                      return (
                        <td class={'num' + (n === 0 ? ' quiet' : f.name === 'late' ? ' bad' : '')} key={f.name}>
                          {n}
                        </td>
                      )
                    })}
                  </tr>
                )
              })}
            </tbody>
          </table>
        </div>
      )}
      <Desk
        path="/supervision"
        search={search}
        loaded={loaded}
        groups={grouped(items, (c) => (isLate(c) ? t('fl.late') : t(`stage.${c.stage}`)), [t('fl.late')])}
        main={(c) => (c.stage === 'pending_close' ? 'close' : c.stage === 'handled' ? 'send_check' : 'urge')}
        hint={t('wk.hintSupervision')}
        empty={t('wk.noneSupervision')}
      />
    </>
  )
}
