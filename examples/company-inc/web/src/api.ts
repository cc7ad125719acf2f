/**
 * The API, as the page sees it. Every failure is an `ApiError`, with a sentence for people; the
 * shapes are those of api/api.py and api/problems.py.
 */

export const STATUSES = ['lead', 'active', 'former'] as const;
export type Status = (typeof STATUSES)[number];

export interface Fields {
  name: string;
  email: string;
  company: string;
  status: Status;
  note: string;
}

export interface Customer extends Fields {
  id: string;
  version: number;
  updated: string;
  updated_by: string;
}

export interface Page {
  items: Customer[];
  total: number;
  page: number;
  size: number;
}

export type Sort = 'name' | '-name' | 'updated' | '-updated';

export interface Query {
  q: string;
  status: Status | '';
  sort: Sort;
  page: number;
}

export interface ImportResult {
  created: number;
  skipped: number;
  rejected: number;
  problems: { line: number; errors: Record<string, string> }[];
}

export interface Visitor {
  name: string;
  available: boolean;
}

export class ApiError extends Error {
  /** `status` is 0 if nothing answered. */
  constructor(
    readonly status: number,
    detail: string,
    readonly errors: Record<string, string> = {},
    readonly current?: Customer,
  ) {
    super(detail);
  }

  /** Whether the same request may work in a moment. */
  get passing(): boolean {
    return [0, 429, 502, 503, 504].includes(this.status);
  }
}

let release = '';
const releaseListeners = new Set<() => void>();

/** Which release answered last: for `useSyncExternalStore`. */
export const answeredBy = {
  subscribe(listener: () => void): () => void {
    releaseListeners.add(listener);
    return () => releaseListeners.delete(listener);
  },
  get: (): string => release,
};

function noteRelease(response: Response): void {
  const now = response.headers.get('X-Release');
  if (now && now !== release) {
    release = now;
    releaseListeners.forEach((listener) => listener());
  }
}

async function failure(response: Response): Promise<ApiError> {
  try {
    const { detail, errors, current } = await response.json();
    return new ApiError(response.status, String(detail), errors, current);
  } catch {
    return new ApiError(response.status, `The server answered with status ${response.status}.`);
  }
}

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(`/api${path}`, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, 'The server cannot be reached.');
  }
  noteRelease(response);
  if (!response.ok) throw await failure(response);
  return response;
}

function json(method: string, body: unknown, headers: Record<string, string> = {}): RequestInit {
  const all = { 'Content-Type': 'application/json', ...headers };
  return { method, body: JSON.stringify(body), headers: all };
}

const match = (version: number) => ({ 'If-Match': `"${version}"` });

function fieldsOf({ name, email, company, status, note }: Fields): Fields {
  return { name, email, company, status, note };
}

export async function listCustomers(query: Query, signal: AbortSignal): Promise<Page> {
  const values = new URLSearchParams({ ...query, page: String(query.page), size: '25' });
  return (await request(`/customers?${values}`, { signal })).json();
}

export async function createCustomer(fields: Fields): Promise<Customer> {
  return (await request('/customers', json('POST', fieldsOf(fields)))).json();
}

/** Replace a customer as it was in `version`; fails with 412 and `current` if it is newer now. */
export async function updateCustomer(
  id: string,
  version: number,
  fields: Fields,
): Promise<Customer> {
  const init = json('PUT', fieldsOf(fields), match(version));
  return (await request(`/customers/${id}`, init)).json();
}

export async function deleteCustomer(id: string, version: number): Promise<void> {
  await request(`/customers/${id}`, { method: 'DELETE', headers: match(version) });
}

export async function importCustomers(file: Blob): Promise<ImportResult> {
  const headers = { 'Content-Type': 'text/csv' };
  return (await request('/customers/import', { method: 'POST', body: file, headers })).json();
}

export async function getVisitor(): Promise<Visitor> {
  return (await request('/session')).json();
}

export async function putVisitor(name: string): Promise<Visitor> {
  return (await request('/session', json('PUT', { name }))).json();
}
