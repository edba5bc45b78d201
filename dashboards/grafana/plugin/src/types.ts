import { DataSourceJsonData } from '@grafana/data';
import { DataQuery } from './query';

export type QueryType =
  | 'series'
  | 'week'
  | 'live'
  | 'latest'
  | 'states'
  | 'parking'
  | 'alarms'
  | 'load'
  | 'cases'
  | 'evaluation'
  | 'ledger'
  | 'annotations';

export interface Filter {
  key: string;
  operator: string;
  value: string;
}

// CitywardenQuery mirrors grafana.Query of the backend.
export interface CitywardenQuery extends DataQuery {
  queryType?: QueryType;
  device?: string;
  model?: string;
  domain?: string;
  site?: string;
  zone?: string;
  grid?: string;
  filters?: Filter[];
  metric?: string;
  agg?: string;
  by?: string;
  across?: string;
  every?: string;
  hours?: string;
  baseline?: number;
  state?: string;
  all?: boolean;
  department?: string;
  of?: string;
  level?: string;
  lang?: string;
}

export interface Secrets {
  token?: string;
}

export interface Options extends DataSourceJsonData {
  console?: string;
}

export const defaults: Partial<CitywardenQuery> = { queryType: 'series', agg: 'mean', lang: 'en' };
