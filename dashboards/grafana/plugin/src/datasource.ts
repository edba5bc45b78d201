import { DataSourceInstanceSettings, MetricFindValue, ScopedVars } from '@grafana/data';
import { DataSourceWithBackend, getTemplateSrv } from '@grafana/runtime';
import { CitywardenQuery, Filter, Options, defaults } from './types';
import { asked, filled, whole } from './variables';

export interface Model {
  name: string;
  title: { zh: string; en: string };
  metrics: Array<{ name: string; unit?: string; title: { zh: string; en: string } }>;
}

export class CitywardenDatasource extends DataSourceWithBackend<CitywardenQuery, Options> {
  // Annotations are queries of the type annotations; their frames have the columns that
  // Grafana looks for.
  annotations = {
    getDefaultQuery: () => ({ queryType: 'annotations' as const, of: 'alarms', lang: 'en' }),
    prepareQuery: (anno: { target?: CitywardenQuery }) => ({ ...(anno.target as CitywardenQuery), refId: 'Anno', queryType: 'annotations' as const }),
  };

  constructor(settings: DataSourceInstanceSettings<Options>) {
    super(settings);
  }

  getDefaultQuery() {
    return defaults;
  }

  filterQuery(q: CitywardenQuery) {
    return !q.hide && whole(q);
  }

  applyTemplateVariables(q: CitywardenQuery, vars: ScopedVars) {
    const t = getTemplateSrv();
    return filled(q, (s) => t.replace(s, vars, 'csv'), this.adhoc());
  }

  // The dashboard's filters of this datasource. The function is there in every Grafana from
  // 9.4 on, but not in its types.
  private adhoc(): Filter[] {
    const t = getTemplateSrv() as unknown as { getAdhocFilters?: (name: string) => Filter[] };
    return t.getAdhocFilters?.(this.name) ?? [];
  }

  async models(): Promise<Model[]> {
    return (await this.getResource('models')).items;
  }

  // values are what a variable or a picker offers.
  async values(of: string, narrow: Record<string, string> = {}): Promise<MetricFindValue[]> {
    return this.getResource('values', { of, ...narrow });
  }

  async metricFindQuery(query: string) {
    const { of, ...narrow } = asked(query);
    return this.values(of, narrow);
  }

  async getTagKeys(): Promise<MetricFindValue[]> {
    return ['device', 'model', 'domain', 'site', 'zone', 'grid', 'severity', 'department'].map((text) => ({ text }));
  }

  async getTagValues({ key }: { key: string }): Promise<MetricFindValue[]> {
    return (await this.values(key)).map(({ value }) => ({ text: String(value) }));
  }
}
