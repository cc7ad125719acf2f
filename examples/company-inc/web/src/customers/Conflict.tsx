/** Two people changed the same customer: what the other stored, and the choice. */
import { Alert, Button, Group, List, Text } from '@mantine/core';
import type { Customer, Fields } from '../api';
import { LABELS, STATUS_LABELS, differences } from './fields';

interface Props {
  mine: Fields;
  theirs: Customer;
  onKeepMine: () => void;
  onTakeTheirs: () => void;
}

export function Conflict({ mine, theirs, onKeepMine, onTakeTheirs }: Props) {
  const differing = differences(mine, theirs);
  const who = theirs.updated_by || 'Somebody else';
  return (
    <Alert
      color="yellow"
      role="alert"
      styles={{ title: { color: 'var(--mantine-color-text)' } }}
      title={`${who} changed this customer while you had it open`}
    >
      {differing.length ? (
        <>
          <Text size="sm">Stored now, other than what is entered here:</Text>
          <List size="sm" my="xs">
            {differing.map((name) => (
              <List.Item key={name}>
                {LABELS[name]}: <strong>{shown(theirs, name)}</strong>
              </List.Item>
            ))}
          </List>
        </>
      ) : (
        <Text size="sm">They stored the same values as are entered here.</Text>
      )}
      <Group gap="xs" mt="xs">
        <Button size="xs" onClick={onKeepMine}>
          Keep my values
        </Button>
        <Button size="xs" variant="default" onClick={onTakeTheirs}>
          Take theirs
        </Button>
      </Group>
    </Alert>
  );
}

function shown(customer: Customer, name: keyof Fields): string {
  return name === 'status' ? STATUS_LABELS[customer.status] : customer[name] || '(empty)';
}
