// DataQuery as @grafana/schema declares it; that module is not shared by
// Grafana 9.4, and only its type is needed.
export interface DataQuery {
  refId: string;
  hide?: boolean;
  key?: string;
  datasource?: { type?: string; uid?: string } | null;
}
