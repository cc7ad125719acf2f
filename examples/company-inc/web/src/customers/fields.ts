/**
 * The rules for a customer's values, checked before they are sent. The API checks again
 * (api/customers.py), and its word counts.
 */
import type { Customer, Fields, Status } from '../api';

export const LIMITS = { name: 120, email: 254, company: 120, note: 2000 } as const;

export const EMPTY: Fields = { name: '', email: '', company: '', status: 'lead', note: '' };

export const LABELS: Record<keyof Fields, string> = {
  name: 'Name',
  email: 'E-mail',
  company: 'Company',
  status: 'Status',
  note: 'Note',
};

export const STATUS_LABELS: Record<Status, string> = {
  lead: 'Lead',
  active: 'Active',
  former: 'Former',
};

/** What is wrong, by field; empty if nothing is. */
export function check(fields: Fields): Partial<Record<keyof Fields, string>> {
  const errors: Partial<Record<keyof Fields, string>> = {};
  for (const [name, limit] of Object.entries(LIMITS) as [keyof typeof LIMITS, number][]) {
    // As the API counts: characters, not UTF-16 units.
    if ([...fields[name].trim()].length > limit) errors[name] = `At most ${limit} characters.`;
  }
  if (!fields.name.trim()) errors.name = 'Enter a name.';
  const email = fields.email.trim();
  if (!email) errors.email = 'Enter an e-mail address.';
  else if (!/^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$/.test(email))
    errors.email ??= 'Enter an address such as ada@example.com.';
  return errors;
}

/** The fields in which what somebody else stored differs from what is entered here. */
export function differences(mine: Fields, theirs: Customer): (keyof Fields)[] {
  const names = Object.keys(LABELS) as (keyof Fields)[];
  return names.filter((name) => mine[name].trim() !== theirs[name]);
}
