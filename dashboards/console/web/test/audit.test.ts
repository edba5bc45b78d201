import { expect, it } from 'vitest'
import { changes, outcome } from '../src/audit'

it('names the fields that differ, nested ones too', () => {
  const before = { name: 'lin', role: 'viewer', location: { lat: 24.1, lon: 117.6 }, tags: ['a'] }
  const after = { name: 'lin', role: 'officer', location: { lat: 24.2, lon: 117.6 }, tags: ['a'], area: '350623100' }
  expect(changes(before, after)).toEqual([
    { field: 'role', before: 'viewer', after: 'officer' },
    { field: 'location.lat', before: '24.1', after: '24.2' },
    { field: 'area', before: undefined, after: '350623100' },
  ])
})

it('takes what was made or deleted as a whole', () => {
  expect(changes(undefined, { name: 'lin', title: null })).toEqual([{ field: 'name', before: undefined, after: 'lin' }])
  expect(changes({ name: 'lin' }, undefined)).toEqual([{ field: 'name', before: 'lin', after: undefined }])
  expect(changes(undefined, undefined)).toEqual([])
})

it('says how a call ended', () => {
  expect([200, 204, 401, 403, 404, 409, 500, 0].map(outcome)).toEqual(['done', 'done', 'denied', 'denied', 'refused', 'refused', 'failed', 'unknown'])
})
