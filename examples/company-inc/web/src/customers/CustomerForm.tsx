/**
 * Create, edit and delete one customer. When somebody else was faster, nothing is overwritten:
 * the form says what they stored, and asks whose values to keep.
 */
import {
  Alert,
  Button,
  Group,
  Modal,
  NativeSelect,
  Stack,
  Text,
  Textarea,
  TextInput,
} from '@mantine/core';
import { useForm } from '@mantine/form';
import { useMediaQuery } from '@mantine/hooks';
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import {
  ApiError,
  STATUSES,
  createCustomer,
  deleteCustomer,
  updateCustomer,
  type Customer,
  type Fields,
} from '../api';
import { Conflict } from './Conflict';
import { EMPTY, LABELS, STATUS_LABELS, check } from './fields';

interface Props {
  /** The customer to edit; none to create one. */
  customer?: Customer | undefined;
  onClose: () => void;
  /** Something was stored or deleted; `message` says what. */
  onDone: (message: string) => void;
}

export function CustomerForm({ customer, onClose, onDone }: Props) {
  const phone = useMediaQuery('(max-width: 36em)', false, { getInitialValueInEffect: false });
  const [version, setVersion] = useState(customer?.version ?? 0);
  const [deleting, setDeleting] = useState(false);
  const form = useForm<Fields>({
    initialValues: customer ?? EMPTY,
    // On saving only: an error that appears when a field is left would push the buttons away from
    // under the pointer.
    validate: check,
  });

  function refused(error: Error): void {
    if (!(error instanceof ApiError)) return;
    form.setErrors(error.errors);
    focusFirst(error.errors);
  }

  function focusFirst(errors: Record<string, unknown>): void {
    const first = Object.keys(LABELS).find((name) => errors[name]);
    if (first) form.getInputNode(first)?.focus();
  }

  const save = useMutation({
    mutationFn: (fields: Fields) =>
      customer ? updateCustomer(customer.id, version, fields) : createCustomer(fields),
    onSuccess: (saved) => onDone(`${saved.name} is saved.`),
    onError: refused,
  });
  const remove = useMutation({
    mutationFn: () => deleteCustomer(customer!.id, version),
    onSuccess: () => onDone(`${customer!.name} is deleted.`),
  });

  const failed = save.error ?? remove.error;
  const theirs = failed instanceof ApiError ? failed.current : undefined;
  const unexplained = failed && !theirs && !Object.keys(form.errors).length;

  function settle(fields: Fields, current: Customer): void {
    form.setValues({ ...fields });
    form.clearErrors();
    setVersion(current.version);
    setDeleting(false);
    save.reset();
    remove.reset();
  }

  return (
    <Modal
      opened
      onClose={onClose}
      title={customer ? `Edit ${customer.name}` : 'New customer'}
      fullScreen={phone ?? false}
      size="lg"
      closeButtonProps={{ 'aria-label': 'Close' }}
    >
      <form noValidate onSubmit={form.onSubmit((fields) => save.mutate(fields), focusFirst)}>
        <Stack>
          {theirs && (
            <Conflict
              mine={form.values}
              theirs={theirs}
              onKeepMine={() => settle(form.values, theirs)}
              onTakeTheirs={() => settle(theirs, theirs)}
            />
          )}
          {unexplained && (
            <Alert color="red" role="alert" title="Not saved">
              {failed.message}
            </Alert>
          )}
          <TextInput
            label={LABELS.name}
            required
            data-autofocus
            autoComplete="off"
            key={form.key('name')}
            {...form.getInputProps('name')}
          />
          <TextInput
            label={LABELS.email}
            type="email"
            required
            autoComplete="off"
            key={form.key('email')}
            {...form.getInputProps('email')}
          />
          <TextInput
            label={LABELS.company}
            autoComplete="off"
            key={form.key('company')}
            {...form.getInputProps('company')}
          />
          <NativeSelect
            label={LABELS.status}
            data={STATUSES.map((value) => ({ value, label: STATUS_LABELS[value] }))}
            key={form.key('status')}
            {...form.getInputProps('status')}
          />
          <Textarea
            label={LABELS.note}
            autosize
            minRows={3}
            maxRows={10}
            key={form.key('note')}
            {...form.getInputProps('note')}
          />
          {deleting ? (
            <Group
              key="question"
              justify="space-between"
              role="group"
              aria-label="Confirm deletion"
            >
              <Text>Delete this customer for good?</Text>
              <Group gap="xs">
                <Button variant="default" autoFocus onClick={() => setDeleting(false)}>
                  Keep
                </Button>
                <Button color="red" loading={remove.isPending} onClick={() => remove.mutate()}>
                  Delete for good
                </Button>
              </Group>
            </Group>
          ) : (
            <Group key="actions" justify="space-between">
              {customer ? (
                <Button variant="subtle" color="red" onClick={() => setDeleting(true)}>
                  Delete
                </Button>
              ) : (
                <span />
              )}
              <Group gap="xs">
                <Button variant="default" onClick={onClose}>
                  Cancel
                </Button>
                <Button type="submit" loading={save.isPending} disabled={theirs !== undefined}>
                  Save
                </Button>
              </Group>
            </Group>
          )}
        </Stack>
      </form>
    </Modal>
  );
}
