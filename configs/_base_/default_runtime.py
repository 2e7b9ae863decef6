custom_imports = dict(imports=['omh_mmseg'], allow_failed_imports=False)
default_scope = 'mmseg'

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)

default_hooks = dict(
    # Fetches the losses from the device only where they are logged.
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=3, save_last=True),
    # OMH begins at a share of the run.
    run_length=dict(type='RunLengthHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Draws on the images as they are read for the prediction.
    visualization=dict(
        type='SegVisualizationHook',
        interval=1,
        backend_args=dict(backend='image_reader', value_range=None, bands=None, max_pixels=178956970),
    ),
    # Checkpoints say what they were trained with; a test or a resume with other settings is refused.
    provenance=dict(type='ProvenanceHook'),
    # Ends a run whose checkpoint does not fill the model; what load_from reads begins a new run.
    checkpoint_check=dict(type='CheckpointCheckHook'),
    # Brings clusterings ('all', 'levels', or names such as 'probe') to their fixed points at the end of a training.
    closing_refit=dict(type='ClosingRefitHook', clusterings='none'),
    assignment=dict(type='AssignmentHook'),
    score_report=dict(type='ScoreReportHook'),
    # Warns of clusters that live on the border of the image.
    border_clusters=dict(type='BorderClusterHook'),
    protocol=dict(type='ProtocolHook'),
    # Figures of validations and tests without labels; when='always' measures beside the scores, too.
    label_free=dict(type='LabelFreeHook', when='no_labels', images=100),
    # STEGO's nearest neighbours, made on first use; build=False stops a run that lacks them.
    neighbour_index=dict(type='NeighbourIndexHook', build=True),
    # For model.temporal: frames are paired with those so many frames later (docs/video.md); flow=None is the exact one
    # of moving scenes, else OpenCV's DIS.
    temporal_pairs=dict(type='TemporalPairsHook', gap=1, flow=None),
    # 'auto' caches frozen features beside the work directory where that is exact, fits and saves forward passes; None
    # never; a folder, e.g. data/feature_cache, always and there.
    feature_cache=dict(
        type='FeatureCacheHook',
        folder='auto',
        dtype='float32',
        splits=['train', 'val', 'test'],
        verify=True,
        # Above 0: so many jittered views per image of HP, cached, in place of a fresh one in each step.
        views=0,
        view_seed=0,
        limit_gib=2.0,
        # Of loaders that read features alone, in place of their own num_workers; None for these.
        workers=0,
    ),
    # After the cache, whose filling leaves no trace then.
    random_state=dict(type='RandomStateHook'),
    resumed_validation=dict(type='ResumedValidationHook'),
    work_dir_lock=dict(type='WorkDirLockHook'),
)
visualizer = dict(
    type='UnsupervisedSegVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)

val_evaluator = dict(type='UnsupervisedIoUMetric')
test_evaluator = dict(type='UnsupervisedIoUMetric', bootstrap=1000)
tta_model = dict(type='CodeAveragingTTA')

log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
