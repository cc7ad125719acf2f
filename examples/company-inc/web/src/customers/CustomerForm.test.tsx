import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { expect, test, vi } from 'vitest';
import type { Customer } from '../api';
import { CustomerForm } from './CustomerForm';

const ADA: Customer = {
  id: 'a1',
  name: 'Ada',
  email: 'ada@example.com',
  company: '',
  status: 'lead',
  note: '',
  version: 1,
  updated: '2026-01-01T00:00:00.000Z',
  updated_by: '',
};

function answers(...replies: [number, unknown][]) {
  const fetched = vi.fn(async (_path: string, _init: RequestInit) => {
    const [status, body] = replies.shift()!;
    return new Response(JSON.stringify(body), { status });
  });
  vi.stubGlobal('fetch', fetched);
  return fetched;
}

function show(customer?: Customer) {
  const done = vi.fn();
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={new QueryClient()}>
        <CustomerForm customer={customer} onClose={() => undefined} onDone={done} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return { done, user: userEvent.setup() };
}

test('wrong values are shown at their fields, and nothing is sent', async () => {
  const fetched = answers();
  const { user } = show();
  await user.type(screen.getByLabelText(/E-mail/), 'ada');
  await user.click(screen.getByRole('button', { name: 'Save' }));
  expect(screen.getByText('Enter a name.')).toBeVisible();
  expect(screen.getByLabelText(/Name/)).toHaveFocus();
  expect(screen.getByLabelText(/E-mail/)).toBeInvalid();
  expect(fetched).not.toHaveBeenCalled();
});

test('what only the API knows is shown at the field too', async () => {
  answers([422, { detail: '', errors: { email: 'Another customer has this address.' } }]);
  const { user, done } = show(ADA);
  await user.click(screen.getByRole('button', { name: 'Save' }));
  expect(await screen.findByText('Another customer has this address.')).toBeVisible();
  expect(done).not.toHaveBeenCalled();
});

test('when somebody was faster, nothing is overwritten without asking', async () => {
  const theirs = { ...ADA, company: 'Engines', version: 2, updated_by: 'Grace' };
  const fetched = answers([412, { detail: '', current: theirs }], [200, { ...ADA, version: 3 }]);
  const { user, done } = show(ADA);
  await user.click(screen.getByRole('button', { name: 'Save' }));
  expect(await screen.findByText(/Grace changed this customer/)).toBeVisible();
  expect(screen.getByText('Engines')).toBeVisible();
  expect(screen.getByRole('button', { name: 'Save' })).toBeDisabled();
  await user.click(screen.getByRole('button', { name: 'Keep my values' }));
  await user.click(screen.getByRole('button', { name: 'Save' }));
  await vi.waitFor(() => expect(done).toHaveBeenCalledWith('Ada is saved.'));
  expect(fetched.mock.calls.map(([, init]) => new Headers(init.headers).get('If-Match'))).toEqual([
    '"1"',
    '"2"',
  ]);
});

test('their values can be taken', async () => {
  answers([412, { detail: '', current: { ...ADA, company: 'Engines', version: 2 } }]);
  const { user } = show(ADA);
  await user.click(screen.getByRole('button', { name: 'Save' }));
  await user.click(await screen.findByRole('button', { name: 'Take theirs' }));
  expect(screen.getByLabelText(/Company/)).toHaveValue('Engines');
});

test('a failure keeps what was entered', async () => {
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('failed')));
  const { user, done } = show(ADA);
  await user.type(screen.getByLabelText(/Company/), 'Looms');
  await user.click(screen.getByRole('button', { name: 'Save' }));
  expect(await screen.findByText('The server cannot be reached.')).toBeVisible();
  expect(screen.getByLabelText(/Company/)).toHaveValue('Looms');
  expect(done).not.toHaveBeenCalled();
});
