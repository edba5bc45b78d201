// Components (部件, GB/T 30428.2): what the city looks after, in a table that
// comes from surveys and is kept by hand.
import { useState } from 'preact/hooks'
import { enc, get, put, query, remove } from '../api'
import { filters, may, say, state, useList, useLoad } from '../app'
import { t, text } from '../i18n'
import { Choose, Decide, Filters, Icon, Mend, Modal, Paged, place, PlaceFields, Search, Sure, Table, useBusy, Wait } from '../ui'
import { href } from '../url'
import { componentStates, type Component } from '../types'
import { classOf } from './act'
import { ImportComponents } from './import'
import { Sections } from './sections'

const page = 200
const narrowing = ['q', 'class', 'state', 'grid', 'department'] as const

export function Components({ search }: { search: string }) {
  const { asked, set, clear } = filters('/components', search, narrowing)
  const loaded = useList<Component>('/components', asked, page)
  const [open, setOpen] = useState<'add' | 'file' | { edit: Component } | { remove: Component }>()
  const close = () => setOpen(undefined)
  const classes = [...state.classes.values()].filter((c) => c.code.startsWith('component/'))
  return (
    <>
      <div class="head">
        <h1>{t('nav.components')}</h1>
        <span class="buttons end">
          <a class="button" href={'/api/v1/components/export' + query(asked)} download="components.csv">
            <Icon name="download" size={16} /> {t('de.export')}
          </a>
          {may('components') && (
            <>
              <button type="button" aria-haspopup="dialog" onClick={() => setOpen('file')}>
                {t('cp.import')}
              </button>
              <button type="button" class="primary" aria-haspopup="dialog" onClick={() => setOpen('add')}>
                <Icon name="plus" size={16} /> {t('cp.add')}
              </button>
            </>
          )}
        </span>
      </div>
      <Sections at="components" />
      <Filters clear={clear}>
        <Search value={asked.q} label={t('cp.search')} onChange={(v) => set('q', v)} />
        <Choose label={t('ca.class')} any={t('cp.anyClass')} value={asked.class} of={classes.map((c) => [c.code, text(c.name, c.code)])} onChange={(v) => set('class', v)} />
        <Choose label={t('cp.state')} any={t('de.anyStatus')} value={asked.state} of={componentStates.map((s) => [s, t(`co.${s}`)])} onChange={(v) => set('state', v)} />
        <Search value={asked.department} label={t('cp.department')} onChange={(v) => set('department', v)} />
        <Search value={asked.grid} label={t('cp.grid')} onChange={(v) => set('grid', v)} />
      </Filters>
      <Paged of={loaded} n={loaded.items.length} none={t(clear ? 'cp.noneFiltered' : 'cp.none')}>
        <Table heads={[t('ca.component'), t('cp.state'), t('co.maintainer'), t('ca.grid'), t('al.actions')]}>
          {loaded.items.map((x) => (
            <tr role="row" key={x.id}>
              <td role="cell" class="c-main">
                <a class="title" href={href([], { component: x.id, at: `${x.location.lon},${x.location.lat}` })}>
                  {x.name}
                </a>
                <span class="sub">{[x.id, text(state.classes.get(x.class)?.name, x.class), x.address].filter(Boolean).join(' · ')}</span>
              </td>
              <td role="cell">{t(`co.${x.state}`)}</td>
              <td role="cell" class={x.maintainer ? '' : 'none'}>
                {x.maintainer || '–'}
              </td>
              <td role="cell" class={x.grid ? '' : 'none'}>
                {x.grid || '–'}
              </td>
              <td role="cell" class="c-act">
                {may('components') && <Mend edit={() => setOpen({ edit: x })} remove={() => setOpen({ remove: x })} />}
              </td>
            </tr>
          ))}
        </Table>
      </Paged>
      {open === 'file' && <ImportComponents onClose={close} onDone={loaded.again} />}
      {open === 'add' && <Edit onClose={close} onDone={loaded.again} />}
      {typeof open === 'object' && 'edit' in open && <Edit of={open.edit} onClose={close} onDone={loaded.again} />}
      {typeof open === 'object' && 'remove' in open && (
        <Sure
          title={t('cp.delete')}
          onClose={close}
          does={async () => {
            await remove('/components/' + enc(open.remove.id))
            say(t('cp.deleted', open.remove.name))
            loaded.again()
          }}
        >
          {t('cp.deleteText', `${open.remove.name} ${open.remove.id}`)}
        </Sure>
      )}
    </>
  )
}

const words = ['authority', 'owner', 'maintainer'] as const

/** Edit adds a component, or replaces what is said of one. */
function Edit({ of, onClose, onDone }: { of?: Component; onClose: () => void; onDone: () => void }) {
  // What is shown may be older than what others have written since.
  const fresh = useLoad('component ' + (of?.id ?? ''), async (signal) => (of === undefined ? null : get<Component>('/components/' + enc(of.id), signal)))
  if (fresh.data === undefined)
    return (
      <Modal title={t(of === undefined ? 'cp.add' : 'cp.edit')} onClose={onClose}>
        {<Wait of={fresh} />}
      </Modal>
    )
  return <Form of={fresh.data ?? undefined} onClose={onClose} onDone={onDone} />
}

function Form({ of: x, onClose, onDone }: { of: Component | undefined; onClose: () => void; onDone: () => void }) {
  const [id, setID] = useState(x?.id ?? '')
  const [name, setName] = useState(x?.name ?? '')
  const [lat, setLat] = useState(String(x?.location.lat ?? ''))
  const [lon, setLon] = useState(String(x?.location.lon ?? ''))
  const [who, setWho] = useState(() => Object.fromEntries(words.map((k) => [k, x?.[k] ?? ''])))
  const [now, setNow] = useState<Component['state']>(x?.state ?? 'intact')
  const [address, setAddress] = useState(x?.address ?? '')
  const [remark, setRemark] = useState(x?.remark ?? '')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    const location = place(lat, lon)
    if (location === undefined || location === 'bad') return setWrong(t('de.badPlace'))
    setWrong('')
    const { id: _, grid: __, updated: ___, ...said } = x ?? ({} as Partial<Component>)
    run(async () => {
      const saved = await put<Component>('/components/' + enc(id.trim()), {
        ...said,
        name: name.trim() || undefined,
        location,
        ...Object.fromEntries(words.map((k) => [k, who[k]!.trim() || undefined])),
        state: now,
        address: address.trim() || undefined,
        remark: remark.trim() || undefined,
      })
      say(t('us.saved', saved.name))
      onDone()
      onClose()
    })
  }
  const known = x === undefined ? undefined : classOf(x.class)
  return (
    <Modal title={t(x === undefined ? 'cp.add' : 'cp.edit')} held={busy} onClose={onClose}>
      <form onSubmit={submit}>
        {x === undefined ? (
          <label>
            {t('map.code')}
            <input value={id} required autofocus inputMode="numeric" maxLength={16} placeholder="3506230101000001" onInput={(e) => setID(e.currentTarget.value)} />
            <span class="quiet small">{t('cp.codeHint')}</span>
          </label>
        ) : (
          <p class="quiet">
            {x.id} · {text(known?.name, x.class)}
          </p>
        )}
        <label>
          {t('de.name')}
          <input value={name} maxLength={200} autofocus={x !== undefined} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <PlaceFields lat={lat} lon={lon} setLat={setLat} setLon={setLon} needed />
        <p class="quiet small">{t('de.gridHint')}</p>
        <div class="pair">
          {words.map((k) => (
            <label key={k}>
              {t(`co.${k}`)}
              <input value={who[k]} maxLength={100} onInput={(e) => setWho({ ...who, [k]: e.currentTarget.value })} />
            </label>
          ))}
          <label>
            {t('cp.state')}
            <select value={now} onChange={(e) => setNow(e.currentTarget.value as Component['state'])}>
              {componentStates.map((s) => (
                <option key={s} value={s}>
                  {t(`co.${s}`)}
                </option>
              ))}
            </select>
          </label>
        </div>
        <label>
          {t('wk.address')}
          <input value={address} maxLength={300} onInput={(e) => setAddress(e.currentTarget.value)} />
        </label>
        <label>
          {t('co.remark')}
          <input value={remark} maxLength={1000} onInput={(e) => setRemark(e.currentTarget.value)} />
        </label>
        <Decide wrong={wrong || error} busy={busy} does={t('us.save')} onClose={onClose} />
      </form>
    </Modal>
  )
}
