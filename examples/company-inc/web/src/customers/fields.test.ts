import { expect, test } from 'vitest';
import type { Customer } from '../api';
import { EMPTY, check, differences } from './fields';

const ADA = { ...EMPTY, name: 'Ada', email: 'ada@example.com' };

test('good values pass', () => {
  expect(check(ADA)).toEqual({});
  expect(check({ ...ADA, email: ' Ada@sub.example.com ' })).toEqual({});
});

test.each([
  [{ name: '  ' }, 'name'],
  [{ name: 'x'.repeat(121) }, 'name'],
  [{ email: '' }, 'email'],
  [{ email: 'ada' }, 'email'],
  [{ email: 'a b@example.com' }, 'email'],
  [{ email: 'ada@example' }, 'email'],
  [{ note: 'x'.repeat(2001) }, 'note'],
])('%o is refused at its field', (change, field) => {
  expect(Object.keys(check({ ...ADA, ...change }))).toEqual([field]);
});

test('a limit counts characters, as the API does', () => {
  expect(check({ ...ADA, name: '🦤'.repeat(120) })).toEqual({});
});

test('differences are the fields that would be lost', () => {
  const theirs: Customer = {
    ...ADA,
    company: 'Engines',
    id: '1',
    version: 2,
    updated: '',
    updated_by: '',
  };
  expect(differences({ ...ADA, name: ' Ada ' }, theirs)).toEqual(['company']);
});
