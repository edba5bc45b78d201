import { DataSourceInstanceSettings, ScopedVars } from '@grafana/data';
import { DataSourceWithBackend, getTemplateSrv } from '@grafana/runtime';
import { CitywardenQuery, Options, defaults } from './types';

export interface Device {
  id: string;
  name: string;
  model: string;
}

export interface Model {
  name: string;
  title: { zh: string; en: string };
  metrics: Array<{ name: string; unit?: string; title: { zh: string; en: string } }>;
}

export class CitywardenDatasource extends DataSourceWithBackend<CitywardenQuery, Options> {
  constructor(settings: DataSourceInstanceSettings<Options>) {
    super(settings);
  }

  getDefaultQuery() {
    return defaults;
  }

  // A series query without device or metric is not finished yet: it is not sent.
  filterQuery(q: CitywardenQuery) {
    return !q.hide && (q.queryType !== 'series' || (!!q.device && !!q.metric));
  }

  applyTemplateVariables(q: CitywardenQuery, vars: ScopedVars) {
    const t = getTemplateSrv();
    const fill = (s?: string) => s && t.replace(s, vars, 'csv');
    return { ...q, device: fill(q.device), metric: fill(q.metric), model: fill(q.model) };
  }

  async devices(search: string): Promise<Device[]> {
    return (await this.getResource('devices', { q: search, limit: 200 })).items;
  }

  async models(): Promise<Model[]> {
    return (await this.getResource('models')).items;
  }

  // A dashboard variable: "devices", or "devices:MODEL".
  async metricFindQuery(query: string) {
    const [what, model] = (query || 'devices').split(':');
    if (what.trim() !== 'devices') {
      throw new Error('write devices, or devices:MODEL');
    }
    const page = await this.getResource('devices', model ? { model: model.trim(), limit: 1000 } : { limit: 1000 });
    return (page.items as Device[]).map((d) => ({ text: d.name || d.id, value: d.id }));
  }
}
