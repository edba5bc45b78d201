import { CitywardenQuery, Filter } from './types';

// asked reads the query of a dashboard's variable, like "zone domain=fire", as the
// parameters of the backend's values.
export function asked(query: string): Record<string, string> {
  const [of = '', ...rest] = query.trim().split(/\s+/);
  const params: Record<string, string> = { of: of || 'device' };
  for (const word of rest) {
    const at = word.indexOf('=');
    if (at < 1) {
      throw new Error(`${word}: write what a variable shows and of which devices, like zone domain=fire`);
    }
    params[word.slice(0, at)] = word.slice(at + 1);
  }
  return params;
}

const texts = ['device', 'model', 'domain', 'site', 'zone', 'grid', 'metric', 'agg', 'by', 'every', 'hours', 'department', 'lang'] as const;

// filled puts the values of a dashboard's variables and filters into a query.
export function filled(query: CitywardenQuery, replace: (text: string) => string, filters: Filter[]): CitywardenQuery {
  const out = { ...query };
  for (const key of texts) {
    const text = query[key];
    if (text) {
      out[key] = replace(text);
    }
  }
  if (filters.length > 0) {
    out.filters = [...(query.filters ?? []), ...filters.map(({ key, operator, value }) => ({ key, operator, value }))];
  }
  return out;
}

// whole says whether a query can be asked: half of one is not sent while it is edited.
export function whole(query: CitywardenQuery): boolean {
  switch (query.queryType ?? 'series') {
    case 'series':
      return !!query.metric && (!!query.agg || !!query.device || !!query.zone || !!query.site || !!query.model);
    case 'week':
      return !!query.metric;
    case 'live':
      return !query.metric || !!query.device;
  }
  return true;
}
