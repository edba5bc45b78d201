// Unit grids: which villages, towns and county they make up, and who looks after
// them.
import { useState } from 'preact/hooks'
import { enc, get, put, query, remove } from '../api'
import { go, may, say, useLoad } from '../app'
import { num } from '../format'
import { t } from '../i18n'
import { Decide, Icon, Listing, Mend, Modal, Sure, useBusy } from '../ui'
import { href, withFilter } from '../url'
import type { Area, List, Officer, ResponsibilityGrid } from '../types'
import { ImportGrids, ImportOfficers } from './import'
import { Sections } from './sections'

const levels = ['village', 'town', 'county'] as const

export function Grids({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const level = levels.find((l) => l === q.get('level')) ?? 'village'
  const areas = useLoad('areas ' + level, async (signal) => (await get<List<Area>>('/areas' + query({ level }), signal)).items)
  const theirs = useLoad('responsibility grids', async (signal) => (await get<List<ResponsibilityGrid>>('/responsibility-grids', signal)).items)
  const [open, setOpen] = useState<'grids' | 'officers' | 'add' | { edit: ResponsibilityGrid } | { remove: ResponsibilityGrid }>()
  const close = () => setOpen(undefined)
  return (
    <>
      <div class="head">
        <h1>{t('nav.grids')}</h1>
        {may('grids') && (
          <span class="buttons end">
            <button type="button" aria-haspopup="dialog" onClick={() => setOpen('grids')}>
              {t('gr.import')}
            </button>
            <button type="button" aria-haspopup="dialog" onClick={() => setOpen('officers')}>
              {t('gr.assign')}
            </button>
            <button type="button" class="primary" aria-haspopup="dialog" onClick={() => setOpen('add')}>
              <Icon name="plus" size={16} /> {t('gr.add')}
            </button>
          </span>
        )}
      </div>
      <Sections at="grids" />
      <section class="card">
        <div class="head small">
          <h2>{t('gr.areas')}</h2>
          <div class="segments" role="group" aria-label={t('gr.areas')}>
            {levels.map((l) => (
              <button type="button" key={l} aria-pressed={l === level} onClick={() => go('/grids' + withFilter(search, 'level', l === 'village' ? '' : l), true)}>
                {t(`gr.${l}`)}
              </button>
            ))}
          </div>
        </div>
        <Listing of={areas} n={(areas.data ?? []).length} none={t('gr.none')}>
          <table class="plain">
            <thead>
              <tr>
                <th>{t('map.code')}</th>
                <th>{t('de.name')}</th>
                <th>{t('nav.grids')}</th>
                <th>{t('map.area')}</th>
              </tr>
            </thead>
            <tbody>
              {areas.data?.map((a) => (
                <tr key={a.code}>
                  <td>
                    <a href={href(['components'], { grid: a.code })} title={t('gr.components')}>
                      {a.code}
                    </a>
                  </td>
                  <td>{a.name || '–'}</td>
                  <td class="num">{a.grids}</td>
                  <td class="num">{num(Math.round(a.area_m2))} m²</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Listing>
      </section>
      <section class="card">
        <h2>{t('gr.officers')}</h2>
        <p class="quiet">{t('gr.officersText')}</p>
        <Listing of={theirs} n={(theirs.data ?? []).length} none={t('gr.nobody')}>
          <ul class="bare lines">
            {theirs.data?.map((g) => (
              <li key={g.id}>
                <span class="grow">
                  {g.name || g.id} · {g.officer || <span class="quiet">{t('gr.noOfficer')}</span>}
                  <span class="sub">{g.grids.join(t('c.comma'))}</span>
                </span>
                {may('grids') && <Mend edit={() => setOpen({ edit: g })} remove={() => setOpen({ remove: g })} />}
              </li>
            ))}
          </ul>
        </Listing>
      </section>
      {open === 'grids' && <ImportGrids onClose={close} onDone={areas.again} />}
      {open === 'officers' && <ImportOfficers onClose={close} onDone={theirs.again} />}
      {open === 'add' && <Edit onClose={close} onDone={theirs.again} />}
      {typeof open === 'object' && 'edit' in open && <Edit of={open.edit} onClose={close} onDone={theirs.again} />}
      {typeof open === 'object' && 'remove' in open && (
        <Sure
          title={t('gr.delete')}
          onClose={close}
          does={async () => {
            await remove('/responsibility-grids/' + enc(open.remove.id))
            say(t('gr.deleted', open.remove.name || open.remove.id))
            theirs.again()
          }}
        >
          {t('gr.deleteText', open.remove.name || open.remove.id)}
        </Sure>
      )}
    </>
  )
}

/** Edit says which unit grids somebody looks after. */
function Edit({ of: g, onClose, onDone }: { of?: ResponsibilityGrid; onClose: () => void; onDone: () => void }) {
  const [id, setID] = useState(g?.id ?? '')
  const [name, setName] = useState(g?.name ?? '')
  const [officer, setOfficer] = useState(g?.officer ?? '')
  const [grids, setGrids] = useState((g?.grids ?? []).join('\n'))
  const { busy, error, run } = useBusy()
  const officers = useLoad('officers', async (signal) => (await get<List<Officer>>('/officers', signal)).items)
  const submit = (e: Event) => {
    e.preventDefault()
    run(async () => {
      const x = await put<ResponsibilityGrid>('/responsibility-grids/' + enc(id.trim()), {
        name: name.trim() || undefined,
        officer: officer || undefined,
        grids: grids.split(/[\s,，、]+/).filter(Boolean),
      })
      say(t('us.saved', x.name || x.id))
      onDone()
      onClose()
    })
  }
  return (
    <Modal title={t(g === undefined ? 'gr.add' : 'gr.edit')} held={busy} onClose={onClose}>
      <form onSubmit={submit}>
        {g === undefined ? (
          <label>
            {t('de.id')}
            <input value={id} required autofocus maxLength={64} autocapitalize="off" spellcheck={false} onInput={(e) => setID(e.currentTarget.value)} />
          </label>
        ) : (
          <p class="quiet">{g.id}</p>
        )}
        <label>
          {t('de.name')}
          <input value={name} maxLength={200} autofocus={g !== undefined} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <label>
          {t('gr.officer')}
          <select value={officer} onChange={(e) => setOfficer(e.currentTarget.value)}>
            <option value="">{t('gr.noOfficer')}</option>
            {officer !== '' && !(officers.data ?? []).some((o) => o.name === officer) && <option value={officer}>{officer}</option>}
            {(officers.data ?? []).map((o) => (
              <option key={o.name} value={o.name}>
                {o.title ? `${o.title} (${o.name})` : o.name}
              </option>
            ))}
          </select>
        </label>
        <label>
          {t('gr.codes')}
          <textarea rows={4} required inputMode="numeric" value={grids} placeholder="350623100001" onInput={(e) => setGrids(e.currentTarget.value)} />
          <span class="quiet small">{t('gr.codesHint')}</span>
        </label>
        <Decide wrong={error} busy={busy} does={t('us.save')} onClose={onClose} />
      </form>
    </Modal>
  )
}
