import React from 'react';
import { DataSourcePluginOptionsEditorProps } from '@grafana/data';
import { InlineField, Input, SecretInput } from '@grafana/ui';
import { Options, Secrets } from './types';

// ConfigEditor asks for the platform's address and a service token, which
// Grafana keeps encrypted and never sends back to the browser.
export function ConfigEditor({ options, onOptionsChange }: DataSourcePluginOptionsEditorProps<Options, Secrets>) {
  return (
    <>
      <InlineField label="URL" labelWidth={16} tooltip="Address of the platform as Grafana's server reaches it">
        <Input
          aria-label="URL"
          width={50}
          placeholder="http://citywarden.example:8080"
          value={options.url}
          onChange={(e) => onOptionsChange({ ...options, url: e.currentTarget.value })}
        />
      </InlineField>
      <InlineField label="Console" labelWidth={16} tooltip="Address of the platform as a browser reaches it, for links; the URL when empty">
        <Input
          aria-label="Console"
          width={50}
          placeholder={options.url || 'https://citywarden.example'}
          value={options.jsonData.console ?? ''}
          onChange={(e) => onOptionsChange({ ...options, jsonData: { ...options.jsonData, console: e.currentTarget.value } })}
        />
      </InlineField>
      <InlineField label="Service token" labelWidth={16} tooltip="Token of a user with the role service">
        <SecretInput
          aria-label="Service token"
          width={50}
          isConfigured={!!options.secureJsonFields?.token}
          onReset={() =>
            onOptionsChange({
              ...options,
              secureJsonFields: { ...options.secureJsonFields, token: false },
              secureJsonData: { ...options.secureJsonData, token: '' },
            })
          }
          onChange={(e) => onOptionsChange({ ...options, secureJsonData: { ...options.secureJsonData, token: e.currentTarget.value } })}
        />
      </InlineField>
    </>
  );
}
