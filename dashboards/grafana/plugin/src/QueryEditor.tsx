import React, { useEffect, useState } from 'react';
import { QueryEditorProps, SelectableValue } from '@grafana/data';
import { InlineField, InlineFieldRow, InlineSwitch, Input, MultiSelect, Select } from '@grafana/ui';
import { CitywardenDatasource, Model } from './datasource';
import { CitywardenQuery, Options, QueryType } from './types';

type Props = QueryEditorProps<CitywardenDatasource, CitywardenQuery, Options>;
type Option = SelectableValue<string>;

const types: Array<SelectableValue<QueryType>> = [
  { value: 'series', label: 'Series', description: 'Readings over time, a line for each device or put together' },
  { value: 'live', label: 'Live', description: 'Readings of one device, or alarms, as they come' },
  { value: 'week', label: 'Week', description: 'What is usual by hour and weekday' },
  { value: 'latest', label: 'Devices', description: 'Every device with its latest values' },
  { value: 'states', label: 'States', description: 'How many devices of each model are in contact' },
  { value: 'parking', label: 'Parking', description: 'Bays, occupancy and turnover by zone' },
  { value: 'alarms', label: 'Alarms' },
  { value: 'load', label: 'Alarm load', description: 'What alarms demanded of the operators' },
  { value: 'cases', label: 'Cases' },
  { value: 'evaluation', label: 'Evaluation', description: 'Indicators of the work on cases' },
  { value: 'ledger', label: 'Ledger', description: 'What became of the readings, and what is missing' },
  { value: 'annotations', label: 'Annotations', description: 'Alarms or cases, to draw over charts' },
];

const words = (...ws: string[]): Option[] => ws.map((value) => ({ value, label: value }));
const languages: Option[] = [
  { value: 'en', label: 'English' },
  { value: 'zh', label: '中文' },
];

// which query types ask for which devices
const ofDevices = new Set<QueryType>(['series', 'week', 'live', 'latest', 'states', 'parking', 'ledger']);
const ofMetric = new Set<QueryType>(['series', 'week', 'live']);
const titled = new Set<QueryType>(['series', 'states', 'week', 'alarms', 'cases', 'evaluation', 'annotations']);

// Choose picks from the platform's own values, or takes a variable like $zone.
function Choose({ datasource, of, value, set }: { datasource: CitywardenDatasource; of: string; value?: string; set: (v: string) => void }) {
  const [options, setOptions] = useState<Option[]>([]);
  const load = () => datasource.values(of).then((vs) => setOptions(vs.map((v) => ({ value: String(v.value), label: v.text, description: String(v.value) }))), () => setOptions([]));
  const chosen = (value ?? '').split(',').filter((s) => s !== '');
  return (
    <MultiSelect
      aria-label={of}
      width={30}
      allowCustomValue
      placeholder="all"
      options={options}
      onOpenMenu={load}
      value={chosen.map((v) => options.find((o) => o.value === v) ?? { value: v, label: v })}
      onChange={(vs) => set(vs.map((v) => v.value).join(','))}
    />
  );
}

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
  const pick = (label: string, key: 'agg' | 'by' | 'across' | 'state' | 'of' | 'level' | 'lang', options: Option[], tooltip?: string) => (
    <InlineField label={label} tooltip={tooltip}>
      <Select aria-label={label} width={18} isClearable options={options} value={query[key]} onChange={(v) => set({ [key]: v?.value ?? '' })} />
    </InlineField>
  );
  const write = (label: string, key: 'every' | 'hours', placeholder: string, tooltip: string) => (
    <InlineField label={label} tooltip={tooltip}>
      <Input
        aria-label={label}
        width={16}
        placeholder={placeholder}
        defaultValue={query[key]}
        onBlur={(e) => set({ [key]: e.currentTarget.value.trim() })}
      />
    </InlineField>
  );
  const choose = (label: string, key: 'device' | 'model' | 'domain' | 'site' | 'zone' | 'grid' | 'department') => (
    <InlineField label={label}>
      <Choose datasource={datasource} of={key} value={query[key]} set={(v) => set({ [key]: v })} />
    </InlineField>
  );

  return (
    <>
      <InlineFieldRow>
        <InlineField label="Show">
          <Select aria-label="Show" width={18} options={types} value={kind} onChange={(v) => set({ queryType: v.value })} />
        </InlineField>
        {ofMetric.has(kind) && (
          <InlineField label="Metric">
            <Select
              aria-label="Metric"
              width={24}
              allowCustomValue
              isClearable={kind === 'live'}
              options={metrics.map((m) => ({ value: m.name, label: m.name, description: `${m.title.en} ${m.unit ?? ''}` }))}
              value={query.metric}
              onChange={(v) => set({ metric: v?.value })}
            />
          </InlineField>
        )}
        {(kind === 'series' || kind === 'week') &&
          pick('Over time', 'agg', words('mean', 'min', 'max', 'sum', 'count', 'last', 'increase'), 'Of each interval; empty for raw points. Intervals without a reading are gaps')}
        {kind === 'alarms' && pick('State', 'state', words('open', 'active', 'cleared'))}
        {kind === 'cases' && (
          <InlineField label="Closed too">
            <InlineSwitch aria-label="Closed too" value={!!query.all} onChange={(e) => set({ all: e.currentTarget.checked })} />
          </InlineField>
        )}
        {kind === 'evaluation' && pick('By', 'of', words('department', 'area', 'post'))}
        {kind === 'evaluation' && query.of === 'area' && pick('Level', 'level', words('county', 'town', 'village'))}
        {kind === 'ledger' && pick('By', 'of', words('device'), 'Empty for hours')}
        {kind === 'annotations' && pick('Of', 'of', words('alarms', 'cases'))}
        {titled.has(kind) && pick('Language', 'lang', languages)}
      </InlineFieldRow>
      {kind === 'series' && (
        <InlineFieldRow>
          {pick('A line for each', 'by', words('device', 'model', 'site', 'zone', 'grid', 'all'))}
          {!!query.by && query.by !== 'device' && pick('Devices together', 'across', words('mean', 'sum', 'min', 'max'))}
          {write('Interval', 'every', "panel's", 'Like 15m or 1h')}
          {write('Hours of day', 'hours', '02:00-04:00', "Only this part of the county's day, and one value a day")}
          <InlineField label="Baseline" tooltip="The mean of the same times so many weeks before, at most 8">
            <Input
              aria-label="Baseline"
              type="number"
              min={0}
              max={8}
              width={10}
              value={query.baseline ?? 0}
              onChange={(e) => set({ baseline: Number(e.currentTarget.value) || undefined })}
            />
          </InlineField>
        </InlineFieldRow>
      )}
      {kind === 'parking' && <InlineFieldRow>{pick('A row for each', 'by', words('zone', 'site'))}</InlineFieldRow>}
      {(ofDevices.has(kind) || kind === 'alarms' || kind === 'annotations') && (
        <InlineFieldRow>
          {choose('Devices', 'device')}
          {choose('Domain', 'domain')}
          {ofDevices.has(kind) && choose('Model', 'model')}
          {ofDevices.has(kind) && choose('Site', 'site')}
          {ofDevices.has(kind) && choose('Zone', 'zone')}
          {ofDevices.has(kind) && choose('Grid', 'grid')}
        </InlineFieldRow>
      )}
      {(kind === 'cases' || kind === 'evaluation') && <InlineFieldRow>{choose('Department', 'department')}</InlineFieldRow>}
    </>
  );
}
