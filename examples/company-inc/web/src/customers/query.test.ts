import { expect, test } from 'vitest';
import { readQuery, writeQuery } from './query';

test('a query comes back from the address as it went', () => {
  const query = { q: 'a&b', status: 'active', sort: '-updated', page: 3 } as const;
  expect(readQuery(writeQuery(query))).toEqual(query);
});

test('the plain list has a plain address', () => {
  expect(writeQuery(readQuery(''))).toBe('');
});

test('nonsense in the address is the plain list', () => {
  expect(readQuery('?status=x&sort=shoe&page=-1')).toEqual(readQuery(''));
  expect(readQuery('?page=1.5').page).toBe(1);
});
