import React, { useEffect, useState } from 'react';
import { QueryEditorProps, SelectableValue } from '@grafana/data';
import { AsyncSelect, InlineField, InlineFieldRow, InlineSwitch, Select } from '@grafana/ui';
import { CitywardenDatasource, Model } from './datasource';
import { CitywardenQuery, Options, QueryType } from './types';

type Props = QueryEditorProps<CitywardenDatasource, CitywardenQuery, Options>;

const types: Array<SelectableValue<QueryType>> = [
  { value: 'series', label: 'Series', description: 'Readings of devices over time' },
  { value: 'latest', label: 'Devices', description: 'Every device with its latest values' },
  { value: 'alarms', label: 'Alarms' },
  { value: 'cases', label: 'Cases' },
];

const aggs: Array<SelectableValue<string>> = [
  ...['mean', 'min', 'max', 'sum', 'count', 'last'].map((a) => ({ value: a, label: a })),
  { value: '', label: 'raw points' },
];

const languages: Array<SelectableValue<string>> = [
  { value: 'en', label: 'English' },
  { value: 'zh', label: '中文' },
];

// QueryEditor picks what a query asks for from what the platform has.
export function QueryEditor({ datasource, query, onChange, onRunQuery }: Props) {
  const [models, setModels] = useState<Model[]>([]);
  useEffect(() => {
    datasource.models().then(setModels, () => setModels([]));
  }, [datasource]);

  const set = (change: Partial<CitywardenQuery>) => {
    onChange({ ...query, ...change });
    onRunQuery();
  };
  const kind = query.queryType ?? 'series';
  const metrics = [...new Map(models.flatMap((m) => m.metrics).map((m) => [m.name, m])).values()];

  return (
    <InlineFieldRow>
      <InlineField label="Show">
        <Select aria-label="Show" width={16} options={types} value={kind} onChange={(v) => set({ queryType: v.value })} />
      </InlineField>
      {kind === 'series' && (
        <>
          <InlineField label="Device" tooltip="One device, several separated by commas, or a variable like $device">
            <AsyncSelect
              aria-label="Device"
              width={36}
              allowCustomValue
              defaultOptions
              loadOptions={async (text: string) =>
                (await datasource.devices(text)).map((d) => ({ value: d.id, label: d.name ? `${d.name} (${d.id})` : d.id }))
              }
              value={query.device ? { value: query.device, label: query.device } : null}
              onChange={(v: SelectableValue<string>) => set({ device: v.value })}
            />
          </InlineField>
          <InlineField label="Metric">
            <Select
              aria-label="Metric"
              width={24}
              allowCustomValue
              options={metrics.map((m) => ({ value: m.name, label: m.name, description: `${m.title.en} ${m.unit ?? ''}` }))}
              value={query.metric}
              onChange={(v) => set({ metric: v.value })}
            />
          </InlineField>
          <InlineField label="Aggregate" tooltip="Of each interval of the panel; intervals without a reading are gaps">
            <Select aria-label="Aggregate" width={16} options={aggs} value={query.agg ?? 'mean'} onChange={(v) => set({ agg: v.value })} />
          </InlineField>
        </>
      )}
      {kind === 'latest' && (
        <InlineField label="Model">
          <Select
            aria-label="Model"
            width={24}
            isClearable
            options={models.map((m) => ({ value: m.name, label: m.title.en, description: m.title.zh }))}
            value={query.model}
            onChange={(v) => set({ model: v?.value })}
          />
        </InlineField>
      )}
      {kind === 'alarms' && (
        <InlineField label="State">
          <Select
            aria-label="State"
            width={16}
            isClearable
            options={[{ value: 'active', label: 'active' }, { value: 'cleared', label: 'cleared' }]}
            value={query.state}
            onChange={(v) => set({ state: v?.value })}
          />
        </InlineField>
      )}
      {kind === 'cases' && (
        <InlineField label="Closed too">
          <InlineSwitch aria-label="Closed too" value={!!query.all} onChange={(e) => set({ all: e.currentTarget.checked })} />
        </InlineField>
      )}
      {(kind === 'alarms' || kind === 'cases') && (
        <InlineField label="Language">
          <Select aria-label="Language" width={16} options={languages} value={query.lang ?? 'en'} onChange={(v) => set({ lang: v.value })} />
        </InlineField>
      )}
    </InlineFieldRow>
  );
}
