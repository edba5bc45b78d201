// Firmware that devices can load, who is to have it, and how far they are. And
// the keys with which devices get a credential by themselves.
import { useState } from 'preact/hooks'
import { enc, get, list, post, put, remove, send } from '../api'
import { say, state, useLoad, useTick } from '../app'
import { progress, progresses, wanted, type Progress } from '../firmware'
import { fullTime, num } from '../format'
import { known, t } from '../i18n'
import { CopyBox, Decide, Failed, Icon, Listing, Loading, Modal, ModelField, modelTitle, Seen, Sure, useBusy, Wait, When, Wrong } from '../ui'
import { href } from '../url'
import type { Device, Firmware as Package, FirmwareTarget, List, Provisioning as Key } from '../types'
import { Sections } from './sections'

const useFirmware = () => useLoad('firmware', async (signal) => (await get<List<Package>>('/firmware', signal)).items)
const most = 5000 // devices of which the progress is looked at

export function Firmware() {
  useTick(5000)
  const loaded = useFirmware()
  const [open, setOpen] = useState<'add' | { assign: Package } | { remove: Package }>()
  const close = () => setOpen(undefined)
  const all = loaded.data ?? []
  return (
    <>
      <div class="head">
        <h1>{t('nav.firmware')}</h1>
        <button type="button" class="primary" aria-haspopup="dialog" onClick={() => setOpen('add')}>
          <Icon name="plus" size={16} /> {t('fw.add')}
        </button>
      </div>
      <Sections at="firmware" />
      <p class="lead quiet">{t('fw.text')}</p>
      <Listing of={loaded} n={all.length} none={t('fw.none')}>
        {all.map((f) => (
          <section class="card" key={named(f)}>
            <div class="head small">
              <h2>
                {f.title} {f.version}
              </h2>
              <span class="quiet">
                {modelTitle(f.model)} · {t('fw.size', num(Math.ceil(f.size / 1024)))} · {f.by} · <When at={f.created} />
              </span>
              <span class="buttons end">
                <button type="button" aria-haspopup="dialog" onClick={() => setOpen({ assign: f })}>
                  {t('fw.assign')}
                </button>
                <button type="button" aria-haspopup="dialog" onClick={() => setOpen({ remove: f })}>
                  {t('fw.delete')}
                </button>
              </span>
            </div>
            <p class="sub">
              SHA-256 <code>{f.checksum}</code>
            </p>
            {(f.targets ?? []).length === 0 ? (
              <p class="quiet">{t('fw.noTargets')}</p>
            ) : (
              <>
                <Targets of={f.targets!} onDone={loaded.again} />
                <Rollout of={f} all={all} />
              </>
            )}
          </section>
        ))}
      </Listing>
      {open === 'add' && <Add onClose={close} onDone={loaded.again} />}
      {typeof open === 'object' && 'assign' in open && <Assign of={open.assign} onClose={close} onDone={loaded.again} />}
      {typeof open === 'object' && 'remove' in open && (
        <Sure
          title={t('fw.delete')}
          onClose={close}
          does={async () => {
            await remove(`/firmware/${enc(open.remove.title)}/${enc(open.remove.version)}`)
            say(t('fw.deleted', named(open.remove)))
            loaded.again()
          }}
        >
          {t('fw.deleteText', named(open.remove))}
        </Sure>
      )}
    </>
  )
}

const named = (f: Package) => `${f.title} ${f.version}`
const targetName = (x: FirmwareTarget) => `${known('fw.scope.', x.scope)} ${x.scope === 'model' ? modelTitle(x.name) : x.name}`

function Targets({ of, onDone }: { of: FirmwareTarget[]; onDone: () => void }) {
  const { busy, error, run } = useBusy()
  const end = (x: FirmwareTarget) =>
    run(async () => {
      await post('/firmware/assign', x)
      say(t('fw.ended', targetName(x)))
      onDone()
    })
  return (
    <>
      <ul class="bare lines">
        {of.map((x) => (
          <li key={`${x.scope} ${x.name}`}>
            <span class="grow">
              {t('fw.for')} {x.scope === 'device' ? <a href={href(['devices', x.name])}>{targetName(x)}</a> : targetName(x)}
            </span>
            <button type="button" disabled={busy} onClick={() => end(x)}>
              {t('fw.end')}
            </button>
          </li>
        ))}
      </ul>
      <Wrong text={error} />
    </>
  )
}

/** Rollout is how far the devices are that are to have a firmware. */
function Rollout({ of, all }: { of: Package; all: Package[] }) {
  const targets = JSON.stringify(all.map((f) => [f.title, f.version, f.targets]))
  const loaded = useLoad(`rollout ${named(of)} ${targets}`, (signal) => list<Device>('/devices', { model: of.model }, most, signal))
  if (loaded.data === undefined) return <Wait of={loaded} />
  const theirs = loaded.data.items.filter((d) => wanted(d, all) === of)
  const at = (p: Progress) => theirs.filter((d) => progress(d, of) === p)
  return (
    <>
      <div class="progress">
        {progresses.map((p) => (
          <span key={p} class="term">
            <b class="num">{at(p).length}</b>
            <span class="sub">{t(`fw.p.${p}`)}</span>
          </span>
        ))}
        <button type="button" class="link" onClick={loaded.again}>
          {t('fw.look')}
        </button>
      </div>
      {loaded.data.more && <p class="quiet small">{t('c.partial', most)}</p>}
      {at('failed').length > 0 && (
        <ul class="bare lines">
          {at('failed').slice(0, 20).map((d) => (
            <li key={d.id}>
              <span class="grow">
                <a href={href(['devices', d.id])}>{d.name || d.id}</a>
                <span class="sub">{String(d.client?.['fw_error'] ?? t('fw.noReason'))}</span>
              </span>
            </li>
          ))}
        </ul>
      )}
    </>
  )
}

function Add({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const models = [...state.models.values()]
  const [title, setTitle] = useState('')
  const [version, setVersion] = useState('')
  const [model, setModel] = useState(models[0]?.name ?? '')
  const [file, setFile] = useState<File>()
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    const form = new FormData()
    form.set('title', title.trim())
    form.set('version', version.trim())
    form.set('model', model)
    form.set('file', file!)
    run(async () => {
      await send<Package>('/firmware', form)
      say(t('fw.added', `${title.trim()} ${version.trim()}`))
      onDone()
      onClose()
    })
  }
  return (
    <Modal title={t('fw.add')} held={busy} onClose={onClose}>
      <form onSubmit={submit}>
        <ModelField value={model} onChange={setModel} autofocus />
        <label>
          {t('fw.title')}
          <input value={title} maxLength={64} required onInput={(e) => setTitle(e.currentTarget.value)} />
        </label>
        <label>
          {t('fw.version')}
          <input value={version} maxLength={64} required onInput={(e) => setVersion(e.currentTarget.value)} />
        </label>
        <label>
          {t('fw.file')}
          <input type="file" required onChange={(e) => setFile(e.currentTarget.files?.[0])} />
        </label>
        <Decide wrong={error} busy={busy} does={t('fw.add')} onClose={onClose} />
      </form>
    </Modal>
  )
}

const scopes = ['device', 'site', 'model'] as const

function Assign({ of: f, onClose, onDone }: { of: Package; onClose: () => void; onDone: () => void }) {
  const [scope, setScope] = useState<(typeof scopes)[number]>('device')
  const [name, setName] = useState('')
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    const target = { scope, name: scope === 'model' ? f.model : name.trim() }
    run(async () => {
      await post('/firmware/assign', { ...target, title: f.title, version: f.version })
      say(t('fw.assigned', targetName(target)))
      onDone()
      onClose()
    })
  }
  return (
    <Modal title={t('fw.assignTitle', named(f))} onClose={onClose}>
      <form onSubmit={submit}>
        <p>{t('fw.assignText')}</p>
        <label>
          {t('fw.who')}
          <select autofocus value={scope} onChange={(e) => setScope(e.currentTarget.value as typeof scope)}>
            {scopes.map((s) => (
              <option key={s} value={s}>
                {t(`fw.to.${s}`)}
              </option>
            ))}
          </select>
        </label>
        {scope === 'model' ? (
          <p class="quiet">{modelTitle(f.model)}</p>
        ) : (
          <label>
            {t(scope === 'device' ? 'le.device' : 'fw.site')}
            <input value={name} maxLength={64} required autocapitalize="off" spellcheck={false} onInput={(e) => setName(e.currentTarget.value)} />
          </label>
        )}
        <Decide wrong={error} busy={busy} does={t('fw.assign')} onClose={onClose} />
      </form>
    </Modal>
  )
}

/** DeviceFirmware is the card of a device with what it runs and what it is to have; nothing when neither is known. */
export function DeviceFirmware({ d }: { d: Device }) {
  const loaded = useFirmware()
  const says = (name: string) => (d.client?.[name] === undefined ? undefined : String(d.client[name]))
  const target = wanted(d, loaded.data ?? [])
  const runs = [says('current_fw_title'), says('current_fw_version')].filter(Boolean).join(' ')
  const fits = loaded.data?.some((f) => f.model === d.model)
  const failed = loaded.data === undefined && loaded.error !== ''
  if (runs === '' && !fits && !failed) return null
  const p = target && progress(d, target)
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('nav.firmware')}</h2>
        <a class="small" href="/firmware">
          {t('fw.assign')}
        </a>
      </div>
      {loaded.data === undefined ? (
        failed ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
      ) : (
        <dl class="tight">
          <dt>{t('fw.runs')}</dt>
          <dd>{runs || t('fw.unsaid')}</dd>
          <dt>{t('fw.wanted')}</dt>
          <dd>{target === undefined ? t('fw.nothing') : named(target)}</dd>
          {p !== undefined && (
            <>
              <dt>{t('fw.progress')}</dt>
              <dd class={p === 'failed' ? 'wrong' : ''}>
                <Icon name={p === 'failed' ? 'warn' : p === 'done' ? 'check' : 'clock'} size={15} /> {t(`fw.p.${p}`)} {says('fw_state') && <code>{says('fw_state')}</code>} {says('fw_error')}
              </dd>
            </>
          )}
        </dl>
      )}
    </section>
  )
}

export function Provisioning() {
  const loaded = useLoad('provisioning', async (signal) => (await get<List<Key>>('/provisioning', signal)).items)
  const [asking, setAsking] = useState<'new' | { end: Key }>()
  const close = () => setAsking(undefined)
  const all = loaded.data ?? []
  return (
    <>
      <div class="head">
        <h1>{t('nav.provisioning')}</h1>
        <button type="button" class="primary" aria-haspopup="dialog" onClick={() => setAsking('new')}>
          <Icon name="plus" size={16} /> {t('pr.new')}
        </button>
      </div>
      <Sections at="provisioning" />
      <p class="lead quiet">{t('pr.text')}</p>
      <Listing of={loaded} n={all.length} none={t('pr.none')}>
        <ul class="bare">
          {all.map((x) => (
            <li class="card" key={x.model}>
              <div class="head small">
                <h2>{modelTitle(x.model)}</h2>
                <span class="quiet">{x.model}</span>
                <button type="button" class="end" aria-haspopup="dialog" onClick={() => setAsking({ end: x })}>
                  {t('pr.end')}
                </button>
              </div>
              <p>
                provisionDeviceKey <code>{x.key}</code>
              </p>
              <p class="sub">
                {t(x.create_new ? 'pr.creates' : 'pr.registered')} · {t('cr.since')} {fullTime(x.since)}
              </p>
            </li>
          ))}
        </ul>
      </Listing>
      {asking === 'new' && <NewKey all={all} onClose={close} onDone={loaded.again} />}
      {typeof asking === 'object' && (
        <Sure
          title={t('pr.end')}
          onClose={close}
          does={async () => {
            await remove('/provisioning/' + enc(asking.end.model))
            say(t('pr.ended', modelTitle(asking.end.model)))
            loaded.again()
          }}
        >
          {t('pr.endText', modelTitle(asking.end.model))}
        </Sure>
      )}
    </>
  )
}

function NewKey({ all, onClose, onDone }: { all: Key[]; onClose: () => void; onDone: () => void }) {
  const [model, setModel] = useState([...state.models.keys()][0] ?? '')
  const [create, setCreate] = useState(false)
  const [got, setGot] = useState<Key & { secret: string }>()
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    run(async () => {
      setGot(await put<Key & { secret: string }>('/provisioning/' + enc(model), { create_new: create }))
      onDone()
    })
  }
  return (
    <Modal title={t('pr.new')} held={busy || got !== undefined} onClose={onClose}>
      {got !== undefined ? (
        <>
          <p class="note">{t('pr.once')}</p>
          <p>provisionDeviceKey</p>
          <CopyBox text={got.key} label="provisionDeviceKey" />
          <p>provisionDeviceSecret</p>
          <CopyBox text={got.secret} label="provisionDeviceSecret" />
          <Seen does={t('de.tokenDone')} onClose={onClose} />
        </>
      ) : (
        <form onSubmit={submit}>
          <ModelField value={model} onChange={setModel} autofocus />
          <label class="check">
            <input type="checkbox" checked={create} onChange={(e) => setCreate(e.currentTarget.checked)} />
            {t('pr.creates')}
          </label>
          <p class="quiet">{t(create ? 'pr.createsText' : 'pr.registeredText')}</p>
          {all.some((x) => x.model === model) && <p class="note">{t('pr.replaces')}</p>}
          <Decide wrong={error} busy={busy} does={t('pr.new')} onClose={onClose} />
        </form>
      )}
    </Modal>
  )
}
