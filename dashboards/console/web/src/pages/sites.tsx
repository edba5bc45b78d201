// Sites: the places whose attributes hold for all their devices, as a limit of
// smoke does for a kitchen. Rules read them.
import { useState } from 'preact/hooks'
import { enc, put, remove } from '../api'
import { filters, may, say, state } from '../app'
import { read, typed, union } from '../attributes'
import { value } from '../format'
import { t, text } from '../i18n'
import { Decide, Filters, Icon, Listing, Mend, Modal, Search, Sure, Table, useBusy, When } from '../ui'
import { href } from '../url'
import type { Site } from '../types'
import { AttributeFields, useSites } from './attributes'
import { Sections } from './sections'

export function Sites({ search }: { search: string }) {
  const loaded = useSites()
  const { asked, set, clear } = filters('/sites', search, ['q'])
  const needle = asked.q.toLowerCase()
  const [open, setOpen] = useState<'add' | { edit: Site } | { remove: Site }>()
  const close = () => setOpen(undefined)
  const titles = new Map(union(state.models.values()).map((a) => [a.name, a]))
  const items = (loaded.data ?? []).filter((s) => [s.id, s.name].join('\n').toLowerCase().includes(needle))
  return (
    <>
      <div class="head">
        <h1>{t('nav.sites')}</h1>
        {may('sites') && (
          <button type="button" class="primary" aria-haspopup="dialog" onClick={() => setOpen('add')}>
            <Icon name="plus" size={16} /> {t('si.add')}
          </button>
        )}
      </div>
      <Sections at="sites" />
      <p class="lead quiet">{t('si.text')}</p>
      <Filters clear={clear}>
        <Search value={asked.q} label={t('de.search')} onChange={(v) => set('q', v)} />
      </Filters>
      <Listing of={loaded} n={items.length} none={t(needle === '' ? 'si.none' : 'si.noneFiltered')}>
        <Table heads={[t('si.site'), t('de.attributes'), t('si.updated'), t('al.actions')]}>
          {items.map((s) => (
            <tr role="row" key={s.id}>
              <td role="cell" class="c-main">
                <a class="title" href={href(['devices'], { q: s.id })} title={t('si.devices')}>
                  {s.name}
                </a>
                {s.name !== s.id && <span class="sub">{s.id}</span>}
              </td>
              <td role="cell">
                {Object.entries(s.attributes).map(([k, v]) => (
                  <span key={k} class="item">
                    <span class="quiet">{text(titles.get(k)?.title, k)}</span> {value(v, titles.get(k)?.unit)}
                  </span>
                ))}
              </td>
              <td role="cell" class="c-age">
                <When at={s.updated} />
              </td>
              <td role="cell" class="c-act">
                {may('sites') && <Mend edit={() => setOpen({ edit: s })} remove={() => setOpen({ remove: s })} />}
              </td>
            </tr>
          ))}
        </Table>
      </Listing>
      {open !== undefined && (open === 'add' || 'edit' in open) && <Edit of={open === 'add' ? undefined : open.edit} onClose={close} onDone={loaded.again} />}
      {typeof open === 'object' && 'remove' in open && (
        <Sure
          title={t('si.delete')}
          onClose={close}
          does={async () => {
            await remove('/sites/' + enc(open.remove.id))
            say(t('si.deleted', open.remove.name))
            loaded.again()
          }}
        >
          {t('si.deleteText', open.remove.name)}
        </Sure>
      )}
    </>
  )
}

/** Edit adds a site, or changes one: its name, and the attributes that it has. */
function Edit({ of: s, onClose, onDone }: { of: Site | undefined; onClose: () => void; onDone: () => void }) {
  const [id, setID] = useState(s?.id ?? '')
  const [name, setName] = useState(s?.name ?? '')
  const [attributes, setAttributes] = useState(() => typed(s?.attributes))
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const all = union(state.models.values())
  const mine = all.filter((a) => a.name in attributes)
  const submit = (e: Event) => {
    e.preventDefault()
    const got = read(attributes, all, s?.attributes)
    if ('wrong' in got) return setWrong(t('de.badNumber', text(all.find((a) => a.name === got.wrong)?.title, got.wrong)))
    setWrong('')
    run(async () => {
      const x = await put<Site>('/sites/' + enc(id.trim()), { name: name.trim(), attributes: got.values })
      say(t('us.saved', x.name))
      onDone()
      onClose()
    })
  }
  return (
    <Modal title={t(s === undefined ? 'si.add' : 'si.edit')} held={busy} onClose={onClose}>
      <form onSubmit={submit}>
        {s === undefined ? (
          <label>
            {t('de.id')}
            <input value={id} maxLength={64} required autofocus autocapitalize="off" spellcheck={false} onInput={(e) => setID(e.currentTarget.value)} />
            <span class="quiet small">{t('si.idHint')}</span>
          </label>
        ) : (
          <p class="quiet">{s.id}</p>
        )}
        <label>
          {t('de.name')}
          <input value={name} maxLength={200} autofocus={s !== undefined} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <fieldset>
          <legend>{t('de.attributes')}</legend>
          <AttributeFields of={mine} values={attributes} set={setAttributes} />
          <label>
            <span class="hidden">{t('si.more')}</span>
            <select value="" onChange={(e) => e.currentTarget.value !== '' && setAttributes({ ...attributes, [e.currentTarget.value]: '' })}>
              <option value="">{t('si.more')}</option>
              {all
                .filter((a) => !(a.name in attributes))
                .map((a) => (
                  <option key={a.name} value={a.name}>
                    {text(a.title, a.name)} ({a.name})
                  </option>
                ))}
            </select>
            <span class="quiet small">{t('si.emptyHint')}</span>
          </label>
        </fieldset>
        <Decide wrong={wrong || error} busy={busy} does={t('us.save')} onClose={onClose} />
      </form>
    </Modal>
  )
}
