import { DataSourceJsonData } from '@grafana/data';
import { DataQuery } from './query';

export type QueryType = 'series' | 'latest' | 'alarms' | 'cases';

// CitywardenQuery mirrors grafana.Query of the backend.
export interface CitywardenQuery extends DataQuery {
  queryType?: QueryType;
  device?: string;
  metric?: string;
  agg?: string;
  model?: string;
  state?: string;
  all?: boolean;
  lang?: string;
}

export interface Secrets {
  token?: string;
}

export type Options = DataSourceJsonData;

export const defaults: Partial<CitywardenQuery> = { queryType: 'series', agg: 'mean', lang: 'en' };
