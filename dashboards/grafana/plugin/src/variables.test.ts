import { expect, test } from 'vitest';
import { asked, filled, whole } from './variables';

test('the query of a variable', () => {
  expect(asked('')).toEqual({ of: 'device' });
  expect(asked(' zone  domain=fire site=mall')).toEqual({ of: 'zone', domain: 'fire', site: 'mall' });
  expect(() => asked('zone fire')).toThrow(/like zone domain=fire/);
});

test('variables and filters come into every field that may hold them', () => {
  const replace = (s: string) => s.replace('$zone', 'a,b').replace('$lang', 'zh');
  const q = { refId: 'A', queryType: 'series' as const, metric: 'smoke', zone: '$zone', lang: '$lang', baseline: 2 };
  const filters = [{ key: 'site', operator: '=', value: 'mall', condition: 'AND' }];
  expect(filled(q, replace, filters)).toEqual({ ...q, zone: 'a,b', lang: 'zh', filters: [{ key: 'site', operator: '=', value: 'mall' }] });
  expect(filled(q, replace, [])).not.toHaveProperty('filters');
});

test('half a query is not sent', () => {
  expect(whole({ refId: 'A' })).toBe(false);
  expect(whole({ refId: 'A', metric: 'smoke' })).toBe(false); // raw points of all devices
  expect(whole({ refId: 'A', metric: 'smoke', agg: 'max' })).toBe(true);
  expect(whole({ refId: 'A', queryType: 'live', metric: 'smoke' })).toBe(false);
  expect(whole({ refId: 'A', queryType: 'live' })).toBe(true);
  expect(whole({ refId: 'A', queryType: 'alarms' })).toBe(true);
});
