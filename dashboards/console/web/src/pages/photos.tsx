// The photos of a case: before and after the work, and taking or adding one.
import { useRef, useState } from 'preact/hooks'
import { enc, get, send } from '../api'
import { say, useLoad } from '../app'
import { fullTime } from '../format'
import { known, t } from '../i18n'
import { shrink } from '../picture'
import { Failed, Icon, Modal, useBusy, When, who, Wrong } from '../ui'
import type { Attachment, Case, List, PhotoKind } from '../types'

const kinds: PhotoKind[] = ['near', 'far', 'reference', 'handle_before', 'handle_after']

/** kindAt is what a photo shows that is taken at a stage. */
export const kindAt = (c: Case): PhotoKind =>
  ['handled', 'checking', 'pending_close', 'closed'].includes(c.stage) ? 'handle_after' : ['pending_handling', 'handling', 'suspended'].includes(c.stage) ? 'handle_before' : 'near'

/** Photos shows the photos of a case side by side; who may comment on the case adds some. */
export function Photos({ of: c }: { of: Case }) {
  const loaded = useLoad('photos ' + c.id, (signal) => get<List<Attachment>>(`/cases/${enc(c.id)}/attachments`, signal))
  const [seen, setSeen] = useState<Attachment>()
  const mayAdd = (c.actions ?? []).includes('comment')
  const all = loaded.data?.items ?? []
  const before = all.filter((p) => p.kind !== 'handle_after')
  const after = all.filter((p) => p.kind === 'handle_after')
  const group = (title: string, of: Attachment[]) =>
    of.length > 0 && (
      <div>
        <h3>{title}</h3>
        <ul class="bare photos">
          {of.map((p) => (
            <li key={p.id}>
              <button type="button" aria-haspopup="dialog" onClick={() => setSeen(p)}>
                <img src={address(c, p)} alt={known('ph.', p.kind)} loading="lazy" width="150" height="112" />
              </button>
              <span class="sub">
                {known('ph.', p.kind)} · {who(p.by)} · <When at={p.at} />
              </span>
            </li>
          ))}
        </ul>
      </div>
    )
  return (
    <section class="card">
      <h2>{t('ph.title')}</h2>
      {loaded.error !== '' && <Failed error={loaded.error} again={loaded.again} />}
      {loaded.data !== undefined && all.length === 0 && <p class="quiet">{t('ph.none')}</p>}
      <div class="columns even">
        {group(t('ph.before'), before)}
        {group(t('ph.after'), after)}
      </div>
      {mayAdd && <AddPhoto key={kindAt(c)} of={c} onDone={loaded.again} />}
      {seen !== undefined && (
        <Modal title={known('ph.', seen.kind)} kind="photo" onClose={() => setSeen(undefined)}>
          <img class="large" src={address(c, seen)} alt={known('ph.', seen.kind)} />
          <p class="quiet">
            {who(seen.by)} · {fullTime(seen.at)}
          </p>
        </Modal>
      )}
    </section>
  )
}

const address = (c: Case, p: Attachment) => `/api/v1/cases/${enc(c.id)}/attachments/${enc(p.id)}`

/** AddPhoto takes a photo with the camera of a phone, or adds one that there is. */
export function AddPhoto({ of: c, kind: usual, onDone }: { of: Case; kind?: PhotoKind; onDone: () => void }) {
  const [kind, setKind] = useState<PhotoKind>(usual ?? kindAt(c))
  const field = useRef<HTMLInputElement>(null)
  const { busy, error, run } = useBusy()
  const add = () => {
    const files = [...(field.current?.files ?? [])]
    run(async () => {
      try {
        for (const f of files) await attach(c.id, kind, f)
        if (files.length > 0) say(t('ph.added', files.length))
      } finally {
        if (field.current !== null) field.current.value = ''
        onDone()
      }
    })
  }
  return (
    <div class="addphoto">
      <label>
        {t('ph.kind')}
        <select value={kind} onChange={(e) => setKind(e.currentTarget.value as PhotoKind)}>
          {kinds.map((k) => (
            <option key={k} value={k}>
              {known('ph.', k)}
            </option>
          ))}
        </select>
      </label>
      <label class={'button' + (busy ? ' busy' : '')}>
        <Icon name="camera" size={16} /> {busy ? t('ph.sending') : t('ph.add')}
        <input ref={field} class="hidden" type="file" accept="image/jpeg,image/png,image/webp" multiple disabled={busy} onChange={add} />
      </label>
      <Wrong text={error} />
    </div>
  )
}

/** attach adds a photo to a case. */
export async function attach(id: string, kind: PhotoKind, file: Blob) {
  const form = new FormData()
  form.append('kind', kind)
  form.append('file', await shrink(file), 'photo.jpg')
  await send<Attachment>(`/cases/${enc(id)}/attachments`, form)
}
