import { DataSourcePlugin } from '@grafana/data';
import { ConfigEditor } from './ConfigEditor';
import { QueryEditor } from './QueryEditor';
import { CitywardenDatasource } from './datasource';
import { CitywardenQuery, Options, Secrets } from './types';

export const plugin = new DataSourcePlugin<CitywardenDatasource, CitywardenQuery, Options, Secrets>(CitywardenDatasource)
  .setConfigEditor(ConfigEditor)
  .setQueryEditor(QueryEditor);
