// The form of a device: to register one, and to change what is said of it.
import { useState } from 'preact/hooks'
import { enc, post, put } from '../api'
import { say, state } from '../app'
import { read, typed } from '../attributes'
import { t, text } from '../i18n'
import { Decide, Modal, ModelField, place, PlaceFields, useBusy } from '../ui'
import type { Device } from '../types'
import { AttributeFields, useSites } from './attributes'
import { Secret } from './credentials'

/** AddDevice registers a device, and gives it a token. */
export function AddDevice({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [got, setGot] = useState<{ id: string; model: string; token: string }>()
  if (got === undefined)
    return (
      <DeviceForm
        title={t('de.add')}
        does={t('de.create')}
        onClose={onClose}
        save={async ({ id, ...d }) => {
          await post('/devices', { id, ...d })
          const { token } = await post<{ token: string }>(`/devices/${enc(id)}/credentials`, { type: 'token' })
          setGot({ id, model: d.model, token })
          say(t('de.added', id))
        }}
      />
    )
  const close = () => {
    onClose()
    onDone()
  }
  return (
    <Modal title={t('de.added', got.id)} held onClose={close}>
      <Secret device={got.id} model={state.models.get(got.model)} issued={{ token: got.token }} onClose={close} />
    </Modal>
  )
}

/** EditDevice changes what is said of a device; its id stays. */
export const EditDevice = ({ of: d, onClose, onDone }: { of: Device; onClose: () => void; onDone: () => void }) => (
  <DeviceForm
    of={d}
    title={t('de.edit')}
    does={t('us.save')}
    onClose={onClose}
    save={async ({ id, ...x }) => {
      await put<Device>('/devices/' + enc(id), { ...x, disabled: d.disabled })
      say(t('us.saved', x.name))
      onDone()
      onClose()
    }}
  />
)

/** Said is what is said of a device. */
interface Said {
  id: string
  name: string
  model: string
  attributes: Record<string, unknown>
  location?: { lat: number; lon: number }
  component?: string
  adjacent?: string[]
}

function DeviceForm({ of: d, title, does, save, onClose }: { of?: Device; title: string; does: string; save: (x: Said) => Promise<void>; onClose: () => void }) {
  const [id, setID] = useState(d?.id ?? '')
  const [name, setName] = useState(d?.name ?? '')
  const [model, setModel] = useState(d?.model ?? [...state.models.keys()][0] ?? '')
  const [lat, setLat] = useState(String(d?.location?.lat ?? ''))
  const [lon, setLon] = useState(String(d?.location?.lon ?? ''))
  const [component, setComponent] = useState(d?.component ?? '')
  const [adjacent, setAdjacent] = useState((d?.adjacent ?? []).join(' '))
  const [attributes, setAttributes] = useState(() => typed(d?.attributes))
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const sites = useSites()
  const declared = state.models.get(model)?.attributes ?? []
  const submit = (e: Event) => {
    e.preventDefault()
    setWrong('')
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id)) return setWrong(t('de.badID'))
    const location = place(lat, lon)
    if (location === 'bad') return setWrong(t('de.badPlace'))
    const got = read(attributes, declared, d?.attributes)
    if ('wrong' in got) return setWrong(t('de.badNumber', text(declared.find((a) => a.name === got.wrong)?.title, got.wrong)))
    run(() =>
      save({
        id,
        name: name.trim() || id,
        model,
        attributes: got.values,
        location,
        component: component.trim() || undefined,
        adjacent: adjacent.split(/[\s,，、]+/).filter(Boolean),
      }),
    )
  }
  return (
    <Modal title={title} held={busy} onClose={onClose}>
      <form onSubmit={submit}>
        {d === undefined ? (
          <label>
            {t('de.id')}
            <input value={id} required autofocus autocapitalize="off" spellcheck={false} onInput={(e) => setID(e.currentTarget.value.trim())} />
            <span class="quiet small">{t('de.idHint')}</span>
          </label>
        ) : (
          <p class="quiet">{d.id}</p>
        )}
        <ModelField value={model} onChange={setModel} />
        <label>
          {t('de.name')}
          <input value={name} maxLength={200} autofocus={d !== undefined} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <PlaceFields lat={lat} lon={lon} setLat={setLat} setLon={setLon} />
        <p class="quiet small">{t('de.gridHint')}</p>
        <div class="pair">
          <label>
            {t('ca.component')}
            <input value={component} maxLength={64} inputMode="numeric" placeholder="3506230101000001" onInput={(e) => setComponent(e.currentTarget.value)} />
          </label>
          <label>
            {t('de.adjacentIDs')}
            <input value={adjacent} autocapitalize="off" spellcheck={false} onInput={(e) => setAdjacent(e.currentTarget.value)} />
          </label>
        </div>
        {(declared.length > 0 || Object.keys(attributes).length > 0) && (
          <fieldset>
            <legend>{t('de.attributes')}</legend>
            <AttributeFields of={declared} values={attributes} set={setAttributes} site={sites.data?.find((s) => s.id === attributes['site'])} />
          </fieldset>
        )}
        <Decide wrong={wrong || error} busy={busy} does={does} onClose={onClose} />
      </form>
    </Modal>
  )
}
