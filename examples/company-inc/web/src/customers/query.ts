/** What the list shows, kept in the address, so that a reload or a link shows the same. */
import { useCallback, useState } from 'react';
import { STATUSES, type Query, type Sort, type Status } from '../api';

const SORTS: readonly Sort[] = ['name', '-name', 'updated', '-updated'];

export function readQuery(search: string): Query {
  const values = new URLSearchParams(search);
  const status = values.get('status') as Status;
  const sort = values.get('sort') as Sort;
  const page = Number(values.get('page'));
  return {
    q: (values.get('q') ?? '').slice(0, 200),
    status: STATUSES.includes(status) ? status : '',
    sort: SORTS.includes(sort) ? sort : 'name',
    page: Number.isInteger(page) && page >= 1 && page <= 1_000_000 ? page : 1,
  };
}

export function writeQuery(query: Query): string {
  const values = new URLSearchParams();
  if (query.q) values.set('q', query.q);
  if (query.status) values.set('status', query.status);
  if (query.sort !== 'name') values.set('sort', query.sort);
  if (query.page > 1) values.set('page', String(query.page));
  const text = values.toString();
  return text && `?${text}`;
}

/** The query, and a way to change parts of it; anything but a new page starts at page 1. */
export function useQueryInAddress(): [Query, (change: Partial<Query>) => void] {
  const [query, setQuery] = useState(() => readQuery(location.search));
  const change = useCallback((part: Partial<Query>) => {
    setQuery((before) => {
      const after = { ...before, page: 1, ...part };
      history.replaceState(null, '', location.pathname + writeQuery(after));
      return after;
    });
  }, []);
  return [query, change];
}
