/** The customers of one page: a table where there is room, cards on a phone. */
import { Anchor, Badge, Card, Group, Stack, Table, Text, UnstyledButton } from '@mantine/core';
import { useMediaQuery } from '@mantine/hooks';
import type { Customer, Sort, Status } from '../api';
import { STATUS_LABELS } from './fields';

const COLORS: Record<Status, string> = { lead: 'blue', active: 'teal', former: 'gray' };

interface Props {
  customers: Customer[];
  sort: Sort;
  onSort: (sort: Sort) => void;
  onOpen: (customer: Customer) => void;
}

export function CustomerList(props: Props) {
  const phone = useMediaQuery('(max-width: 48em)', false, { getInitialValueInEffect: false });
  return phone ? <Cards {...props} /> : <Rows {...props} />;
}

function Rows({ customers, sort, onSort, onOpen }: Props) {
  return (
    <Table highlightOnHover verticalSpacing="sm">
      <Table.Thead>
        <Table.Tr>
          <SortedBy label="Name" by="name" sort={sort} onSort={onSort} />
          <Table.Th>Company</Table.Th>
          <Table.Th>Status</Table.Th>
          <SortedBy label="Last change" by="updated" sort={sort} onSort={onSort} />
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {customers.map((customer) => (
          <Table.Tr key={customer.id}>
            <Table.Td maw={320}>
              <Name customer={customer} onOpen={onOpen} />
              <Text size="sm" c="dimmed" truncate>
                {customer.email}
              </Text>
            </Table.Td>
            <Table.Td maw={240}>
              <Text size="sm" truncate>
                {customer.company}
              </Text>
            </Table.Td>
            <Table.Td>
              <StatusBadge status={customer.status} />
            </Table.Td>
            <Table.Td>
              <Changed customer={customer} />
            </Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}

function Cards({ customers, onOpen }: Props) {
  return (
    <Stack gap="xs" component="ul" p={0} m={0} style={{ listStyle: 'none' }}>
      {customers.map((customer) => (
        <Card key={customer.id} component="li" withBorder padding="sm">
          <Group justify="space-between" wrap="nowrap" align="start">
            <div style={{ minWidth: 0 }}>
              <Name customer={customer} onOpen={onOpen} />
              <Text size="sm" c="dimmed" truncate>
                {customer.email}
              </Text>
              {customer.company && (
                <Text size="sm" truncate>
                  {customer.company}
                </Text>
              )}
            </div>
            <StatusBadge status={customer.status} />
          </Group>
          <Changed customer={customer} />
        </Card>
      ))}
    </Stack>
  );
}

function Name({ customer, onOpen }: Pick<Props, 'onOpen'> & { customer: Customer }) {
  return (
    <Anchor
      component="button"
      fw={600}
      ta="left"
      maw="100%"
      truncate
      onClick={() => onOpen(customer)}
    >
      {customer.name}
    </Anchor>
  );
}

function StatusBadge({ status }: { status: Status }) {
  return (
    <Badge color={COLORS[status]} variant="light" style={{ flexShrink: 0 }}>
      {STATUS_LABELS[status]}
    </Badge>
  );
}

function Changed({ customer }: { customer: Customer }) {
  const when = new Date(customer.updated);
  return (
    <Text size="sm" c="dimmed" component="time" dateTime={customer.updated} truncate>
      {when.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })}
      {customer.updated_by && ` by ${customer.updated_by}`}
    </Text>
  );
}

interface HeadProps {
  label: string;
  by: 'name' | 'updated';
  sort: Sort;
  onSort: (sort: Sort) => void;
}

function SortedBy({ label, by, sort, onSort }: HeadProps) {
  const down = sort === `-${by}`;
  const active = sort === by || down;
  return (
    <Table.Th aria-sort={active ? (down ? 'descending' : 'ascending') : 'none'}>
      <UnstyledButton fw={700} fz="sm" onClick={() => onSort(sort === by ? `-${by}` : by)}>
        {label} <span aria-hidden>{active ? (down ? '↓' : '↑') : '↕'}</span>
      </UnstyledButton>
    </Table.Th>
  );
}
