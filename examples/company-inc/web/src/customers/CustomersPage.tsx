/** The list of customers with its search, its states and the form. */
import {
  Alert,
  Button,
  Center,
  Group,
  Loader,
  NativeSelect,
  Pagination,
  Paper,
  Stack,
  Text,
  TextInput,
  Title,
} from '@mantine/core';
import { useDebouncedCallback } from '@mantine/hooks';
import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { STATUSES, listCustomers, type Customer, type Query, type Status } from '../api';
import type { Connection } from '../live';
import { CustomerForm } from './CustomerForm';
import { CustomerList } from './CustomerList';
import { STATUS_LABELS } from './fields';
import { Files } from './Files';
import { useQueryInAddress } from './query';

const POLL_MS = 10_000;

interface Props {
  connection: Connection;
  say: (message: string) => void;
}

export function CustomersPage({ connection, say }: Props) {
  const [query, change] = useQueryInAddress();
  const [open, setOpen] = useState<Customer | 'new' | null>(null);
  const client = useQueryClient();
  const list = useQuery({
    queryKey: ['customers', query],
    queryFn: ({ signal }) => listCustomers(query, signal),
    placeholderData: keepPreviousData,
    refetchInterval: connection === 'live' ? false : POLL_MS,
  });
  const pages = list.data ? Math.max(1, Math.ceil(list.data.total / list.data.size)) : 1;
  const settled = list.data && !list.isPlaceholderData;

  useEffect(() => {
    // Somebody deleted the last customer of the last page.
    if (settled && query.page > pages) change({ page: pages });
  }, [settled, query.page, pages, change]);

  function done(message: string): void {
    setOpen(null);
    say(message);
    void client.invalidateQueries({ queryKey: ['customers'] });
  }

  return (
    <Stack>
      <Group justify="space-between">
        <Title order={1} size="h2">
          Customers
        </Title>
        <Group gap="xs">
          <Files onDone={say} />
          <Button onClick={() => setOpen('new')}>New customer</Button>
        </Group>
      </Group>
      <Filters query={query} onChange={change} />
      <Text size="sm" c="dimmed" role="status">
        {list.data ? count(list.data.total) : ' '}
      </Text>
      {list.error && (
        <Alert color="red" role="alert" title="The customers cannot be shown right now">
          <Stack align="start" gap="xs">
            {list.error.message}
            {list.data && ' What you see may be old.'}
            <Button
              size="xs"
              variant="default"
              loading={list.isFetching}
              onClick={() => list.refetch()}
            >
              Try again
            </Button>
          </Stack>
        </Alert>
      )}
      {list.isPending && !list.error && (
        <Center mih={240}>
          <Loader aria-label="Loading" />
        </Center>
      )}
      {list.data && list.data.items.length > 0 && (
        <CustomerList
          customers={list.data.items}
          sort={query.sort}
          onSort={(sort) => change({ sort })}
          onOpen={setOpen}
        />
      )}
      {settled && list.data.total === 0 && (
        <Nothing
          filtered={Boolean(query.q || query.status)}
          onCreate={() => setOpen('new')}
          onClear={() => change({ q: '', status: '' })}
        />
      )}
      {pages > 1 && (
        <Center>
          <Pagination
            total={pages}
            value={Math.min(query.page, pages)}
            onChange={(page) => change({ page })}
            getControlProps={(control) => ({ 'aria-label': `${control} page` })}
            getItemProps={(page) => ({ 'aria-label': `Page ${page}` })}
          />
        </Center>
      )}
      {open && (
        <CustomerForm
          customer={open === 'new' ? undefined : open}
          onClose={() => setOpen(null)}
          onDone={done}
        />
      )}
    </Stack>
  );
}

function count(total: number): string {
  return total === 1 ? '1 customer' : `${total.toLocaleString()} customers`;
}

interface FiltersProps {
  query: Query;
  onChange: (change: Partial<Query>) => void;
}

function Filters({ query, onChange }: FiltersProps) {
  const [text, setText] = useState(query.q);
  const search = useDebouncedCallback((q: string) => onChange({ q }), 250);
  useEffect(() => setText(query.q), [query.q]);
  return (
    <Group gap="xs" role="search" wrap="nowrap">
      <TextInput
        aria-label="Search"
        placeholder="Search name, e-mail, company"
        type="search"
        maxLength={200}
        flex={1}
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          search(event.currentTarget.value);
        }}
      />
      <NativeSelect
        aria-label="Status"
        value={query.status}
        onChange={(event) => onChange({ status: event.currentTarget.value as Status | '' })}
        data={[
          { value: '', label: 'Any status' },
          ...STATUSES.map((value) => ({ value, label: STATUS_LABELS[value] })),
        ]}
      />
    </Group>
  );
}

interface NothingProps {
  filtered: boolean;
  onCreate: () => void;
  onClear: () => void;
}

function Nothing({ filtered, onCreate, onClear }: NothingProps) {
  return (
    <Paper withBorder p="xl">
      <Stack align="center" gap="sm">
        <Text fw={600}>{filtered ? 'No customer matches' : 'No customers yet'}</Text>
        <Text c="dimmed" ta="center">
          {filtered
            ? 'Try fewer letters, or another status.'
            : 'Create the first one, or import a CSV file with the columns name and email.'}
        </Text>
        {filtered ? (
          <Button variant="default" onClick={onClear}>
            Show all
          </Button>
        ) : (
          <Button onClick={onCreate}>Create the first customer</Button>
        )}
      </Stack>
    </Paper>
  );
}
